"""The default model, with the weights that `make serve` fetches, answers in the app."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from fireside.errors import ModelError
from fireside.models.local import resolve_model
from fireside.settings import Settings
from tests.e2e.conftest import PASSWORD
from tests.e2e.test_journeys import answered, ask, history, last, turns
from tests.test_end_to_end import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    name = Settings.model_fields["model"].default
    try:
        model = resolve_model(name, Settings())
    except ModelError:
        pytest.skip(f"{name} is not on this machine: `fireside pull {name}` fetches it")
    server = Server(model.path, tmp_path)
    yield server
    assert server.stop() == 0


def test_a_first_evening(server: Server, new_page: Callable[..., Page]) -> None:
    assert server.process.stdout is not None
    link = next(line for line in server.process.stdout if "/setup#" in line).split()[-1]
    page = new_page()
    page.goto(link)
    page.get_by_label("Name").fill("Ada Lovelace")
    page.get_by_label("E-mail address").fill("ada@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()

    ask(page, "What is the capital of France?")
    answered(page, "Paris")
    expect(page).not_to_have_title(re.compile("What is the capital"))  # it has been given one
    expect(history(page)).to_have_count(1)

    ask(page, "Tell me a very long story about a lighthouse keeper and his cat.")
    expect(last(page).locator(".prose")).to_have_text(re.compile(r"\w+(\W+\w+){20}"))
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Continue").wait_for()
    stopped = last(page).locator(".prose").inner_text()
    page.reload()
    expect(last(page)).to_contain_text(stopped[:80])
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden(timeout=60_000)
    whole = last(page).locator(".prose").inner_text()
    assert whole.startswith(stopped.rstrip()) and len(whole) > len(stopped)
    expect(turns(page)).to_have_count(4)
