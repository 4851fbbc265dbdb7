"""axe finds nothing to complain of, on any screen, in any theme. https://github.com/dequelabs/axe-core"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Site
from tests.e2e.test_journeys import answered, ask
from tests.e2e.test_reading import DOCUMENT
from tests.server.scripted_app import says

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
ALL = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
COLOURS = {"type": "rule", "values": ["color-contrast"]}  # all that another theme can change

pytestmark = pytest.mark.skipif(not AXE.exists(), reason="axe comes with web/'s packages: cd web && npm ci")


def check(page: Page, rules: dict[str, Any] = ALL) -> None:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("rules => axe.run({ runOnly: rules })", rules)
    assert found["passes"]
    problems = [
        f"{problem['id']}: {node['html'][:200]}" for problem in found["violations"] for node in problem["nodes"]
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("theme", ["light", "dark", "contrast"])
def test_every_screen(site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page], theme: str) -> None:
    rules = ALL if theme == "light" else COLOURS
    site.model.answers["document"] = says(DOCUMENT)
    page = new_page(storage_state=signed_in, reduced_motion="reduce")
    page.goto(site.url)
    page.evaluate("theme => localStorage.setItem('fireside:theme', theme)", theme)
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    check(page, rules)
    ask(page, "A document")
    answered(page, "Done.")
    expect(page.locator("math")).to_be_visible()
    page.get_by_role("article").first.hover()
    check(page, rules)
    page.get_by_role("button", name="Parameters").click()
    check(page, rules)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Search conversations").fill("heading")
    expect(page.get_by_role("option").first).to_be_visible()
    check(page, rules)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Ada Lovelace").click()
    check(page, rules)
    for section in ("", "/appearance", "/prompts", "/archive", "/shares", "/data", "/security", "/keys"):
        page.goto(f"{site.url}/settings{section}", wait_until="networkidle")
        check(page, rules)


@pytest.mark.parametrize("path", ["/", "/join", "/setup#token", "/reset#token"])
def test_who_is_not_signed_in(site: Site, new_page: Callable[..., Page], path: str) -> None:
    page = new_page(color_scheme="dark", viewport={"width": 390, "height": 800})
    page.goto(site.url + path)
    expect(page.get_by_role("heading")).to_be_visible()
    check(page)
