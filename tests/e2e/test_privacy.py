"""Nothing of one person's is the next one's, on a browser that both use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.e2e.conftest import PASSWORD, Site, slowly
from tests.e2e.test_journeys import LONG, ask, last

KEPT = "JSON.stringify([{ ...localStorage }, { ...sessionStorage }])"


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Ada Lovelace").click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_role("heading", name="Welcome back")).to_be_visible()


def sign_in(page: Page, email: str) -> None:
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()


def test_tabs_and_drafts_are_one_persons(site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page]) -> None:
    session = {cookie["name"]: cookie["value"] for cookie in signed_in["cookies"]}
    with httpx.Client(base_url=site.url, headers={"X-Fireside": "1"}, cookies=session) as ada:
        invited = ada.post("/api/admin/invitations", json={"role": "member"}).raise_for_status().json()
    bob = {"name": "Bob", "email": "bob@example.com", "password": PASSWORD, "token": invited["path"].partition("#")[2]}
    with httpx.Client(base_url=site.url, headers={"X-Fireside": "1"}) as client:
        client.post("/api/users", json=bob).raise_for_status()

    page = new_page()
    page.goto(site.url)
    other = page.context.new_page()
    other.goto(site.url)
    sign_in(page, "ada@example.com")
    expect(other.get_by_role("button", name="Ada Lovelace")).to_be_visible()  # the other tab comes along
    ask(other, "Ada's secret question")
    expect(last(other)).to_contain_text("Hello there.")
    message = page.get_by_label("Message", exact=True)
    message.fill("Ada's draft")
    page.locator("input[type=file]").set_input_files(
        [{"name": "ada.txt", "mimeType": "text/plain", "buffer": b"Ada's file"}]
    )
    expect(page.get_by_text("ada.txt")).to_be_visible()
    page.reload()
    expect(message).to_have_value("Ada's draft")
    sign_out(page)
    expect(other.get_by_role("heading", name="Welcome back")).to_be_visible()
    assert "Ada" not in page.evaluate(KEPT) and "Ada" not in other.evaluate(KEPT)
    sign_in(other, "bob@example.com")
    expect(page.get_by_role("button", name="Bob")).to_be_visible()
    expect(message).to_have_value("")
    for tab in (page, other):
        expect(tab.get_by_text("secret")).to_have_count(0)


def test_a_temporary_chat_is_kept_nowhere_in_the_browser(site: Site, page: Page) -> None:
    site.model.answers["secret"] = slowly(LONG)
    page.get_by_role("button", name="Temporary chat").click()
    message = page.get_by_label("Message", exact=True)
    message.fill("A secret, half written")
    assert "half written" not in page.evaluate(KEPT)
    ask(page, "A secret")
    expect(last(page)).to_contain_text("Sentence 1 of")
    ask(page, "Another secret that waits")
    expect(page.get_by_text("Another secret that waits")).to_be_visible()
    page.locator("input[type=file]").set_input_files(
        [{"name": "secret.txt", "mimeType": "text/plain", "buffer": b"A secret file"}]
    )
    expect(page.get_by_text("secret.txt")).to_be_visible()
    kept = page.evaluate(KEPT)
    assert "secret" not in kept and "Sentence" not in kept
    assert page.evaluate("indexedDB.databases()") == [] and page.evaluate("caches.keys()") == []
    page.reload()
    expect(message).to_have_value("")
    expect(page.get_by_text("secret")).to_have_count(0)
