"""What a person does twice, in two tabs or against a network that loses answers."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, Route, expect

from tests.e2e.conftest import Site
from tests.e2e.test_journeys import answered, ask, rename_and_pin


def fetched(page: Page, path: str) -> Any:
    return page.evaluate("path => fetch(path, {headers: {'X-Fireside': '1'}}).then(r => r.json())", path)


def messages(page: Page, role: str) -> list[str]:
    tree = fetched(page, "/api/conversations/" + page.url.rsplit("/", 1)[1])
    return [message["content"] for message in tree["messages"] if message["role"] == role]


def test_what_was_renamed_and_pinned_stays_so_when_it_is_written_to(site: Site, page: Page) -> None:
    rename_and_pin(site, page)
    pinned = page.get_by_role("region", name="Pinned").get_by_role("link")
    expect(pinned).to_have_text(["Cacti"])
    ask(page, "More")
    answered(page, "Hello there.")
    expect(pinned).to_have_text(["Cacti"])


def test_a_question_whose_answer_was_lost_is_taken_once(site: Site, page: Page) -> None:
    ask(page, "First")
    answered(page, "Hello there.")

    def lose(route: Route) -> None:
        route.fetch()  # the server takes it
        route.abort("connectionreset")

    page.route("**/messages", lose, times=1)
    ask(page, "Only once please")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Only once please")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("")
    assert messages(page, "user") == ["First", "Only once please"]


def test_a_double_click_asks_for_one_more_answer(site: Site, page: Page) -> None:
    ask(page, "First")
    answered(page, "Hello there.")
    page.get_by_role("button", name="Answer again").dblclick()
    expect(page.get_by_label("2 of 2")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert len(messages(page, "assistant")) == 2


def test_a_draft_outlasts_what_another_tab_sends_from_the_same_place(site: Site, page: Page) -> None:
    other = page.context.new_page()
    other.goto(site.url)
    field = page.get_by_label("Message", exact=True)
    field.fill("A long prompt that took an hour")
    ask(other, "hi")
    answered(other, "Hello there.")
    page.reload()
    expect(field).to_have_value("A long prompt that took an hour")


def test_a_page_with_old_settings_leaves_what_it_did_not_change(site: Site, page: Page) -> None:
    other = page.context.new_page()
    for tab in (page, other):
        tab.goto(site.url + "/settings")
        expect(tab.get_by_role("button", name="Save", exact=True)).to_be_visible()
    page.get_by_label("Custom instructions").fill("Be brief.")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Saved")).to_be_visible()
    other.get_by_label("Name", exact=True).fill("Ada L.")
    other.get_by_role("button", name="Save", exact=True).click()
    expect(other.get_by_text("Saved")).to_be_visible()
    me = fetched(page, "/api/me")
    assert (me["name"], me["instructions"]) == ("Ada L.", "Be brief.")
