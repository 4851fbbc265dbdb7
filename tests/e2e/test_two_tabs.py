"""What goes on in one tab, or on one device, comes into the other, and is never answered past."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Site, slowly
from tests.e2e.test_journeys import LONG, answered, ask, history, last, turns
from tests.server.scripted_app import says


@pytest.fixture
def conversation(site: Site, page: Page) -> Page:
    site.model.title = "Candles"
    site.model.answers["long"] = slowly(LONG)
    ask(page, "Hello")
    answered(page, "Hello there.")
    page.wait_for_url("**/c/*")
    return page


def test_another_tab_follows(conversation: Page) -> None:
    page = conversation
    other = page.context.new_page()
    other.goto(page.url)
    answered(other, "Hello there.")
    ask(page, "Something long")
    expect(last(other)).to_contain_text("Sentence 2 of")
    expect(other.get_by_role("button", name="Stop")).to_be_visible()
    answered(other, "Sentence 25 of a long answer.")
    answered(page, "Sentence 25 of a long answer.")
    ask(other, "And now?")
    answered(page, "Hello there.")
    expect(turns(page)).to_have_count(6)
    expect(turns(other)).to_have_count(6)


def test_another_device_is_caught_up_with_before_it_is_answered(
    site: Site, signed_in: dict[str, Any], conversation: Page, new_page: Callable[..., Page]
) -> None:
    page, phone = conversation, new_page(storage_state=signed_in)
    phone.clock.install()  # stands still, so that the phone does not look by itself
    phone.goto(page.url)
    answered(phone, "Hello there.")
    ask(page, "My name is Zaphod")
    answered(page, "Hello there.")
    site.model.answers["What is my name?"] = lambda prompt: says("Zaphod" if "Zaphod" in prompt else "Nobody")
    ask(phone, "What is my name?")
    expect(phone.get_by_text("This conversation has gone on elsewhere.")).to_be_visible()
    expect(turns(phone)).to_have_count(4)
    expect(phone.get_by_label("Message", exact=True)).to_have_value("What is my name?")
    phone.keyboard.press("Enter")
    answered(phone, "Zaphod")
    expect(turns(phone)).to_have_count(6)


def test_another_device_looks_by_itself(
    site: Site, signed_in: dict[str, Any], conversation: Page, new_page: Callable[..., Page]
) -> None:
    page, phone = conversation, new_page(storage_state=signed_in)
    phone.clock.install()
    phone.goto(page.url)
    answered(phone, "Hello there.")
    site.model.title = "Another matter"
    ask(page, "Something more")
    answered(page, "Hello there.")
    page.get_by_role("link", name="New chat").first.click()
    ask(page, "Something else")
    answered(page, "Hello there.")
    expect(history(page).first).to_have_text("Another matter")
    phone.clock.run_for(16_000)
    expect(turns(phone)).to_have_count(4)
    expect(history(phone).first).to_have_text("Another matter")
