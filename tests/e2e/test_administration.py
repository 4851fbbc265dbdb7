"""What an administrator does in the app."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import FloatRect, Locator, Page, expect

from tests.e2e.conftest import PASSWORD, Site, slowly
from tests.e2e.test_accessibility import AXE, check
from tests.e2e.test_journeys import LONG, answered, ask, last


def room(page: Page, section: str) -> None:
    """By the menu of the person, as one does."""
    page.get_by_role("button", name="Ada Lovelace").click()
    page.get_by_role("menuitem", name="Administration").click()
    page.get_by_role("navigation", name="Administration").get_by_role("link", name=section).click()


def row(page: Page, text: str) -> Locator:
    return page.get_by_role("main").get_by_role("listitem").filter(has_text=text)


def box(element: Locator) -> FloatRect:
    return element.bounding_box() or FloatRect(x=0, y=0, width=0, height=0)


def choose(page: Page, name: str, action: str) -> None:
    page.get_by_role("button", name=f"Options for {name}").click()
    page.get_by_role("menuitem", name=action, exact=True).click()


def invite(page: Page, site: Site, new_page: Callable[..., Page], name: str, role: str = "Member") -> Page:
    page.get_by_role("combobox", name="Role", exact=True).select_option(role)
    page.get_by_role("button", name="Make invitation").click()
    link = page.get_by_role("main").get_by_text(re.compile("/join#")).inner_text()
    other = new_page(viewport={"width": 390, "height": 800})
    other.goto(link)
    other.get_by_label("Name").fill(name)
    other.get_by_label("E-mail address").fill(f"{name.lower()}@example.com")
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_role("button", name="Create account").click()
    expect(other.get_by_label("Message", exact=True)).to_be_visible()
    return other


def test_people_come_change_and_go(site: Site, page: Page, new_page: Callable[..., Page]) -> None:
    room(page, "People")
    bob = invite(page, site, new_page, "Bob")
    page.reload()
    expect(row(page, "bob@example.com")).to_be_visible()
    expect(row(page, "Invitation: Member")).to_have_count(0)  # it was used
    bob.goto(f"{site.url}/admin")  # is not for him
    expect(bob.get_by_role("heading", name="There is no such page.")).to_be_visible()
    expect(bob.get_by_role("heading", name="Administration")).to_have_count(0)

    page.get_by_label("Role of Bob").select_option("Guest")
    expect(page.get_by_label("Role of Bob")).to_have_value("guest")
    choose(page, "Bob", "Disable account")
    expect(row(page, "bob@example.com")).to_contain_text("Disabled")
    bob.reload()
    expect(bob.get_by_role("heading", name="Welcome back")).to_be_visible()
    choose(page, "Bob", "Enable account")
    choose(page, "Bob", "Make a link for a new password")
    link = page.get_by_role("main").get_by_text(re.compile("/reset#")).inner_text()
    bob.goto(link)
    bob.get_by_label("New password").fill("another long password")
    bob.get_by_role("button", name="Save password").click()
    expect(bob.get_by_label("Message", exact=True)).to_be_visible()

    choose(page, "Bob", "What they did")
    expect(row(page, "\u2068Bob\u2069 chose a new password by a link.")).to_be_visible()
    expect(row(page, "\u2068Ada Lovelace\u2069 changed the role of \u2068Bob\u2069: Guest.")).to_be_visible()
    expect(row(page, "\u2068Ada Lovelace\u2069 made the first account.")).to_have_count(0)
    page.get_by_label("Kind of activity").select_option("Account changed")
    expect(page.get_by_role("main").get_by_role("listitem")).to_have_count(3)

    page.get_by_role("link", name="People").click()
    page.get_by_label("Search by name").fill("BOB")
    expect(page.get_by_role("button", name="Options for Ada Lovelace")).to_have_count(0)
    choose(page, "Bob", "Delete")
    dialog = page.get_by_role("dialog", name="Delete the account of Bob?")
    expect(dialog.get_by_role("button", name="Delete")).to_be_disabled()
    dialog.get_by_label("To confirm, type: bob@example.com").fill("bob@example.com")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nobody found.")).to_be_visible()


def test_lists_on_a_phone_and_from_right_to_left(
    site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page]
) -> None:
    page = new_page(storage_state=signed_in, viewport={"width": 390, "height": 844}, locale="ar")
    page.goto(f"{site.url}/admin")
    expect(row(page, "ada@example.com")).to_be_visible()
    name, role = row(page, "ada@example.com").locator(".what, .what ~ .hint").all()
    assert box(role)["y"] > box(name)["y"] + box(name)["height"]  # beside each other both would be cut
    assert box(name)["width"] > 200
    page.goto(f"{site.url}/admin/settings")
    english = page.get_by_text("Address the server binds to.")
    expect(english).to_be_visible()
    assert english.evaluate("text => getComputedStyle(text).direction") == "ltr"
    assert box(english)["x"] + box(english)["width"] > 340  # but on the side where a line begins


def test_a_model_is_loaded_chosen_and_unloaded(site: Site, page: Page) -> None:
    room(page, "Models")
    expect(row(page, "tiny")).to_contain_text("Ready")
    page.get_by_role("button", name="Load: second").click()
    expect(row(page, "second")).to_contain_text("Ready")
    choose(page, "second", "Parameters")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)

    page.get_by_role("link", name="New chat").click()
    page.get_by_role("button", name="Model: tiny").click()
    page.get_by_role("menuitemradio", name="second").click()
    ask(page, "Who are you?")
    answered(page, "I am the second.")
    expect(page.get_by_role("button", name="Model: second")).to_be_visible()

    chat = page.url
    room(page, "Models")
    choose(page, "second", "Make it the default")
    expect(row(page, "second")).to_contain_text("Default")
    choose(page, "tiny", "Make it the default")
    expect(row(page, "tiny")).to_contain_text("Default")
    choose(page, "second", "Unload")
    expect(page.get_by_role("button", name="Load: second")).to_be_visible()
    page.goto(chat)
    answered(page, "I am the second.")
    expect(page.get_by_role("button", name="Model: tiny")).to_be_visible()  # what it will be answered with now
    ask(page, "And now?")
    answered(page, "Hello there.")


def test_an_answer_outlives_its_model(empty_site: Site, new_page: Callable[..., Page]) -> None:
    site, page = empty_site, new_page()
    page.goto(site.setup_link)
    page.get_by_label("Name").fill("Ada Lovelace")
    page.get_by_label("E-mail address").fill("ada@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    room(page, "Models")
    page.get_by_role("button", name="Load: second").click()
    expect(row(page, "second")).to_contain_text("Ready")
    choose(page, "second", "Make it the default")
    expect(row(page, "second")).to_contain_text("Default")
    site.model.answers["long"] = slowly(LONG)
    page.get_by_role("link", name="New chat").click()
    page.get_by_role("button", name="Model: second").click()
    page.get_by_role("menuitemradio", name="tiny").click()
    ask(page, "Something long")
    expect(last(page)).to_contain_text("Sentence 2 of")
    chat = page.url
    room(page, "Models")
    expect(row(page, "tiny")).to_contain_text("One answer is being written.")
    choose(page, "tiny", "Start again")
    dialog = page.get_by_role("dialog", name="Start tiny again?")
    expect(dialog).to_contain_text("One answer is being written with it.")
    expect(dialog.get_by_role("button", name="Interrupt them now")).to_be_visible()
    dialog.get_by_role("button", name="Cancel").click()
    expect(row(page, "tiny")).to_contain_text("One answer is being written.")
    choose(page, "tiny", "Unload")
    page.get_by_role("button", name="Interrupt them now").click()
    expect(row(page, "tiny")).to_have_count(0)
    page.goto(chat)
    expect(last(page)).to_contain_text("The model was unloaded while this was written.")
    last(page).get_by_role("button", name="Continue").click()
    answered(page, "I am the second.")
    expect(last(page)).to_contain_text("Sentence 2 of")
    expect(last(page)).to_contain_text("Written in turn by tiny, second.")


def test_backups_are_made_downloaded_and_deleted(site: Site, page: Page) -> None:
    room(page, "Backups")
    page.get_by_role("button", name="Make a backup").click()
    expect(page.get_by_text("The backup is made.")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: fireside-").click()
    assert download.value.path().read_bytes().startswith(b"SQLite format 3\0")
    expect(page.get_by_text("cp /")).to_contain_text(download.value.suggested_filename)
    page.get_by_role("button", name="Delete: fireside-").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No backups yet.")).to_be_visible()


def test_health_moves_and_settings_are_found(site: Site, page: Page) -> None:
    room(page, "Health")
    figures = page.get_by_role("region", name="tiny")
    expect(figures).to_contain_text("Tokens per second")
    speed = figures.locator("div").filter(has_text="Tokens per second")
    expect(speed).to_have_text(re.compile("second *0$"), timeout=8_000)  # after the second look
    page.get_by_role("link", name="Settings", exact=True).click()
    page.get_by_label("Search settings").fill("sign in again")
    expect(page.get_by_role("main").get_by_role("listitem")).to_have_text(re.compile("session_days.*30.*Default", re.S))


@pytest.mark.skipif(not AXE.exists(), reason="axe comes with web/'s packages: cd web && npm ci")
def test_what_opens_is_accessible(site: Site, page: Page) -> None:
    room(page, "People")
    page.get_by_role("button", name="Make invitation").click()
    expect(page.get_by_text("Hand this link over now.")).to_be_visible()
    page.get_by_role("button", name="Options for Ada Lovelace").click()
    check(page)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Models").click()
    choose(page, "tiny", "Parameters")
    check(page)
