"""Saying what one thinks of answers: thumbs, a blind comparison, taking it back, and what administrators see of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.e2e.conftest import Site, serving, slowly
from tests.e2e.test_accessibility import AXE, check
from tests.e2e.test_journeys import answered, ask, last
from tests.server.scripted_app import Scripted, says

OTHER = "From the other model, at some length, and slowly enough to be seen."


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """With a second model, "other"."""
    with serving(other=Scripted(answer=slowly(OTHER))) as site:
        yield site


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).last.click()


def given(page: Page) -> Locator:
    """What the settings list."""
    return page.locator("main").get_by_role("listitem")


def settings(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/settings/feedback")


def test_a_thumb_its_reasons_and_the_question_of_consent(site: Site, page: Page) -> None:
    ask(page, "Something to judge")
    answered(page, "Hello there.")
    thumb = last(page).get_by_role("button", name="Bad answer")
    thumb.click()
    expect(thumb).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Unclear").click()
    expect(page.get_by_role("button", name="Unclear")).to_have_attribute("aria-pressed", "true")
    if AXE.exists():
        check(page)
    page.get_by_role("button", name="Yes, they may").click()
    expect(page.get_by_role("button", name="Yes, they may")).to_have_count(0)
    ask(page, "Nothing stands in the way of the next question")
    expect(page.get_by_role("article")).to_have_count(4)
    answered(page, "Hello there.")
    page.get_by_role("textbox", name="Comment").fill("What?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Comment")).to_have_count(0)
    expect(page.get_by_role("button", name="Bad answer").first).to_be_focused()
    page.reload()
    thumb = page.get_by_role("button", name="Bad answer").first
    expect(thumb).to_have_attribute("aria-pressed", "true")
    settings(page, site)
    item = given(page)
    expect(item).to_contain_text("Bad answer: “What?”")
    expect(item).to_contain_text("models may learn from it")
    item.get_by_role("link").click()
    expect(page.get_by_role("article").nth(1)).to_be_focused()
    expect(page.get_by_role("button", name="Bad answer").first).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Bad answer").first.click()
    expect(page.get_by_role("button", name="Bad answer").first).to_have_attribute("aria-pressed", "false")
    settings(page, site)
    expect(page.get_by_text("You have given no feedback yet.")).to_be_visible()


def test_quick_presses_are_all_of_what_is_on_the_screen(site: Site, page: Page) -> None:
    site.model.answers["quickly"] = says("- **Green**")
    ask(page, "Something to judge quickly")
    answered(page, "Green")
    thumb = last(page).get_by_role("button", name="Good answer")
    thumb.click()
    expect(page.get_by_role("button", name="Helpful")).to_be_visible()
    with page.expect_response(lambda answer: "clear" in (answer.request.post_data or "")):  # the second one
        page.evaluate(
            "for (const name of ['Helpful', 'Clear']) [...document.querySelectorAll('.reason')]"
            ".find((button) => button.textContent === name).click()"
        )
    (item,) = page.request.get(f"{site.url}/api/feedback").json()["items"]
    assert item["reasons"] == ["helpful", "clear"]
    address = page.url
    settings(page, site)
    expect(given(page).get_by_role("link")).to_have_text("- Green")
    held: list[Route] = []
    page.route(re.compile(r"/api/feedback\?"), lambda route: held.append(route))
    page.goto(address)
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        thumb.click()  # before the app knows that there is one
        expect(thumb).to_have_attribute("aria-pressed", "false")
        for route in held:
            route.continue_()
    expect(thumb).to_have_attribute("aria-pressed", "false")
    assert page.request.get(f"{site.url}/api/feedback").json()["items"] == []


def test_a_comparison_is_blind_until_the_choice_which_numbers_make(site: Site, page: Page) -> None:
    told: list[str] = []
    page.on("response", lambda response: told.append(response.url) if "/comparison" in response.url else None)
    ask(page, "Something to compare")
    answered(page, "Hello there.")
    page.get_by_role("button", name="Compare two answers").click()
    sheet = page.get_by_role("dialog", name="Compare two answers")
    expect(sheet.get_by_role("radio", name="tiny and other")).to_be_checked()
    sheet.get_by_role("button", name="Compare", exact=True).click()
    region = page.get_by_role("region", name="Which answer is better?")
    expect(region).to_be_focused()
    expect(region.get_by_role("button", name="Both are good")).to_be_disabled()
    expect(region).to_contain_text("From the other model, at")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.reload()  # nothing is lost, and nothing told
    expect(region.get_by_role("button", name="Both are good")).to_be_enabled()
    expect(region).to_contain_text(OTHER)
    expect(region.locator("h3")).to_have_text([re.compile(r"^A\s*Answer A\s*$"), re.compile(r"^B\s*Answer B\s*$")])
    if AXE.exists():
        check(page)
    region.focus()
    is_left = OTHER in region.get_by_role("article").first.inner_text()
    page.keyboard.press("1" if is_left else "2")
    chosen = region.get_by_role("article").filter(has_text="Your choice")
    expect(chosen).to_contain_text("by other")
    expect(chosen).to_contain_text(OTHER)
    expect(region.get_by_role("article").filter(has_text="Hello there.")).to_contain_text("by tiny")
    go_on = region.get_by_role("button", name="Go on")
    expect(go_on).to_be_focused()
    go_on.press("Enter")
    expect(last(page)).to_be_focused()
    expect(last(page)).to_contain_text(OTHER)
    expect(last(page)).to_contain_text("/3")  # the others are still there
    ask(page, "It goes on from there")
    answered(page, "Hello there.")
    expect(page.get_by_role("article").nth(1)).to_contain_text(OTHER)
    assert len(told) == 1
    settings(page, site)
    expect(given(page).first).to_contain_text("You preferred other to tiny")


def test_an_answer_given_again_and_a_comparison_that_is_left(site: Site, page: Page) -> None:
    ask(page, "Something else")
    answered(page, "Hello there.")
    site.model.answers["Something else"] = says("A second try.")
    press(page, "Answer again")
    answered(page, "A second try.")
    page.get_by_role("group", name="Is this better").get_by_role("button", name="Better").click()
    expect(page.get_by_role("group", name="Is this better")).to_have_count(0)
    page.get_by_role("button", name="Compare two answers").click()
    page.get_by_role("radio", name="tiny, twice").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    region = page.get_by_role("region", name="Which answer is better?")
    expect(region).to_contain_text("A second try.")
    region.get_by_role("button", name="Skip").click()
    expect(region).to_have_count(0)
    expect(last(page)).to_contain_text("A second try.")
    settings(page, site)
    expect(given(page).first).to_contain_text("Better than the answer before")


def test_what_administrators_see_and_export(site: Site, page: Page) -> None:
    ask(page, "Something good")
    answered(page, "Hello there.")
    last(page).get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Helpful")).to_be_visible()
    settings(page, site)
    box = page.get_by_role("checkbox", name="Models on this server may learn")
    expect(box).to_be_enabled()
    if not box.is_checked():
        box.click()
        page.get_by_role("button", name="Earlier feedback as well").click()
        expect(box).to_be_checked()
    if AXE.exists():
        check(page)
    page.goto(f"{site.url}/admin/feedback")
    expect(page.get_by_role("figure", name="Marked as good")).to_contain_text("100%")
    expect(page.get_by_role("row", name="tiny")).to_contain_text("21% to 100%")
    if AXE.exists():
        check(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Examples (SFT)").click()
    assert download.value.suggested_filename == "feedback-sft.jsonl"
    rows = [msgspec.json.decode(line) for line in download.value.path().read_bytes().splitlines()]
    assert {"role": "user", "content": "Something good"} in [row["messages"][-2] for row in rows]
    settings(page, site)
    page.get_by_role("button", name="Withdraw all").click()
    page.get_by_role("dialog").get_by_role("button", name="Withdraw all").click()
    expect(page.get_by_text("You have given no feedback yet.")).to_be_visible()
    page.goto(f"{site.url}/admin/feedback")
    with page.expect_download() as download:
        page.get_by_role("link", name="Pairs (DPO)").click()
    assert download.value.path().read_bytes() == b""


def test_a_phone_shows_one_below_the_other(
    site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page]
) -> None:
    page = new_page(storage_state=signed_in, viewport={"width": 390, "height": 800}, has_touch=True)
    page.goto(site.url)
    ask(page, "Something to compare\non a phone")  # Enter is a new line there
    expect(page.get_by_label("Message", exact=True)).to_have_value("Something to compare\non a phone\n")
    page.get_by_role("button", name="Send").click()
    answered(page, "Hello there.")
    page.get_by_role("button", name="Compare two answers").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    sides = page.get_by_role("region", name="Which answer is better?").get_by_role("article")
    expect(page.get_by_role("button", name="A is better")).to_be_enabled()
    first, second = (sides.nth(index).bounding_box() for index in (0, 1))
    assert first and second and first["x"] == second["x"] and first["y"] + first["height"] <= second["y"]
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_role("button", name="A is better").click()
    expect(sides.first).to_contain_text("Your choice")
