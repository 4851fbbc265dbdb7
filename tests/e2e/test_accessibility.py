"""axe finds nothing to complain of, on any route, in any theme, from the left and from the right, on a phone or not.

https://github.com/dequelabs/axe-core, for WCAG 2.2 AA; in high contrast, AAA.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from fireside.server.page import PAGE_PATHS
from tests.e2e.conftest import Complaints, Site
from tests.e2e.test_journeys import answered, ask, history
from tests.e2e.test_reading import DOCUMENT
from tests.server.scripted_app import says

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ALL = {"runOnly": {"type": "tag", "values": TAGS}, "rules": {"target-size": {"enabled": True}}}
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}  # all that another theme can change
ENHANCED = {"runOnly": {"type": "rule", "values": ["color-contrast-enhanced"]}}

WIDE = {"width": 1100, "height": 760}
PHONE = {"width": 390, "height": 800}
NARROW = {"width": 320, "height": 640}  # what 1280 pixels are at 400 %: WCAG's measure of reflow

MISSING = f"/c/{'0' * 32}"

# CHAT stands for a conversation. What is new in the app has to be in here, see below.
ROUTES = (
    "/",
    "CHAT",
    "/settings",
    "/settings/appearance",
    "/settings/prompts",
    "/settings/archive",
    "/settings/feedback",
    "/settings/shares",
    "/settings/data",
    "/settings/security",
    "/settings/keys",
    "/admin",
    "/admin/models",
    "/admin/feedback",
    "/admin/health",
    "/admin/settings",
    "/admin/backups",
    "/admin/activity",
    MISSING,
    "/continue",
)
DOORS = ("/", "/join", "/join#token", "/setup#token", "/reset#token", "/continue#token")

# (theme, window, rules): whatever can go wrong in two of language, theme and width at once is met.
WAYS: dict[str, list[tuple[str, Any, dict[str, Any]]]] = {
    "en-GB": [("light", WIDE, ALL), ("dark", PHONE, COLOURS), ("contrast", WIDE, ENHANCED)],
    "ar": [("dark", WIDE, COLOURS), ("light", PHONE, ALL), ("contrast", PHONE, ENHANCED)],
}

# Whatever can be seen, and reaches out of the window where nothing scrolls sideways.
REACHING_OUT = """() => {
  const scrolls = element => element &&
    (['auto', 'scroll'].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
  return [...document.querySelectorAll('main *, header *, form *, footer *')].filter(element => {
    const { left, right, width, height } = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    const isSeen = width > 1 && height > 1 && style.visibility === 'visible' && style.clipPath === 'none';
    if (!isSeen || element.closest('.unseen, svg, math')) return false;
    return (right > innerWidth + 1 || left < -1) && !scrolls(element.parentElement);
  }).map(element => element.outerHTML.slice(0, 120));
}"""

pytestmark = pytest.mark.skipif(not AXE.exists(), reason="axe comes with web/'s packages: cd web && npm ci")


def check(page: Page, rules: dict[str, Any] = ALL) -> None:
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("rules => axe.run(rules)", rules)
    problems = [
        f"{problem['id']}: {node['html'][:200]}" for problem in found["violations"] for node in problem["nodes"]
    ]
    assert not problems, f"{page.url}\n" + "\n".join(problems)
    assert found["passes"]


def settle(page: Page) -> None:
    """Until nothing more has been fetched for a moment. Playwright's own `networkidle` waits for half a second."""
    expect(page.locator("h1").first).to_be_attached()
    page.evaluate(
        """async () => {
          for (let count = -1, now = 0; count !== now; ) {
            count = performance.getEntriesByType('resource').length;
            await new Promise(resolve => setTimeout(resolve, 80));
            now = performance.getEntriesByType('resource').length;
          }
        }"""
    )


def go(page: Page, path: str) -> None:
    """As a link of the app's own does."""
    page.evaluate("path => { history.pushState(null, '', path); dispatchEvent(new PopStateEvent('popstate')); }", path)
    settle(page)


def wear(page: Page, theme: str) -> None:
    """As lib/theme.ts does."""
    page.evaluate(
        """theme => {
          document.documentElement.dataset.theme = theme;
          document.documentElement.toggleAttribute('data-contrast', theme === 'contrast');
        }""",
        theme,
    )


def check_ways(page: Page, ways: list[tuple[str, Any, dict[str, Any]]]) -> None:
    for theme, window, rules in ways:
        page.set_viewport_size(window)
        wear(page, theme)
        check(page, rules)


def check_reflow(page: Page) -> None:
    """Nothing is cut off in 320 pixels, nor where text is twice as large."""
    for window, size in ((NARROW, "100%"), (WIDE, "200%")):
        page.set_viewport_size(window)  # type: ignore[arg-type]
        page.evaluate("size => document.documentElement.style.setProperty('font-size', size)", size)
        assert page.evaluate(REACHING_OUT) == [], f"{page.url} at {window['width']} pixels, {size}"
    page.evaluate("document.documentElement.style.removeProperty('font-size')")


@pytest.fixture(scope="module")
def chat(site: Site, signed_in: dict[str, Any], browser: Any) -> str:
    """The path of a conversation with everything in it that Markdown has."""
    site.model.answers["document"] = says(DOCUMENT)
    page = browser.new_page(storage_state=signed_in)
    page.goto(site.url)
    ask(page, "A document")
    answered(page, "Done.")
    page.context.close()
    return re.sub(r"^https?://[^/]+", "", page.url)


@pytest.mark.parametrize("locale", WAYS)
def test_every_route(
    site: Site,
    signed_in: dict[str, Any],
    new_page: Callable[..., Page],
    complaints: Complaints,
    chat: str,
    locale: str,
) -> None:
    page = new_page(storage_state=signed_in, reduced_motion="reduce", locale=locale)
    page.goto(site.url)
    settle(page)
    titles = set()
    for route in ROUTES:
        page.set_viewport_size(WIDE)  # type: ignore[arg-type]
        go(page, chat if route == "CHAT" else route)
        assert page.locator("html").get_attribute("dir") == ("rtl" if locale == "ar" else "ltr")
        if route == "CHAT":
            expect(page.locator("math")).to_be_visible()
            page.get_by_role("article").last.hover()
        check_ways(page, WAYS[locale])
        check_reflow(page)
        titles.add(page.title())
        if route == MISSING:
            complaints.said.pop()  # that there is no such conversation
    assert len(titles) >= len(ROUTES) - 2 and all("Fireside" in title for title in titles)


@pytest.mark.parametrize("locale", WAYS)
def test_every_door(site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page], locale: str) -> None:
    page = new_page(locale=locale)
    for route in DOORS if locale != "ar" else DOORS[:1]:
        page.goto("about:blank")  # another fragment alone would load nothing
        page.goto(site.url + route)
        settle(page)
        check_ways(page, WAYS[locale])
        check_reflow(page)


def test_what_opens_over_a_page(
    site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page], chat: str
) -> None:
    page = new_page(storage_state=signed_in, reduced_motion="reduce")
    page.goto(site.url + chat)
    ways = [("light", WIDE, ALL), ("contrast", WIDE, ENHANCED), ("dark", PHONE, COLOURS)]

    page.get_by_role("button", name="Parameters").click()
    check_ways(page, ways)
    page.keyboard.press("Escape")
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Search conversations").fill("heading")
    expect(page.get_by_role("option").first).to_be_visible()
    check_ways(page, ways)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+/")
    check_ways(page, ways)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Show conversations").click()  # over the page, on a phone
    check(page)
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    page.get_by_role("button", name="Ada Lovelace").click()
    check_ways(page, ways[:2])
    page.keyboard.press("Escape")
    history(page).first.hover()
    page.get_by_role("button", name=re.compile("Options for")).first.click()
    check_ways(page, ways[:2])


def test_no_route_is_forgotten(site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page]) -> None:
    """That the lists above are all there is: of what the server answers with the app, and of the rooms' sections."""
    known = {route.partition("#")[0].replace("CHAT", "/c/0") for route in ROUTES + DOORS}
    for pattern in PAGE_PATHS:
        assert any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), route) for route in known), pattern
    page = new_page(storage_state=signed_in)
    for room in ("/settings", "/admin"):
        page.goto(site.url + room)
        sections = page.locator(f"nav a[href^='{room}']")
        expect(sections.first).to_be_visible()
        assert set(sections.evaluate_all("links => links.map(link => link.getAttribute('href'))")) <= known
