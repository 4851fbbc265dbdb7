"""Without a network: what was read is there, and nobody else's. And a new version reaches who is in an old one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from fireside.server import page as served
from tests.e2e.conftest import PASSWORD, Site, slowly
from tests.e2e.test_journeys import answered, ask, history, last, turns
from tests.server.scripted_app import says

KEPT = """async () => {
  const found = {};
  for (const name of (await caches.keys()).filter(name => name.startsWith('fireside:read:')))
    for (const request of await (await caches.open(name)).keys())
      found[request.url.replace(location.origin, '')] = await (await caches.match(request)).text();
  return found;
}"""


@pytest.fixture
def installed(site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page]) -> Page:
    """Ada's browser, with the app's own files in it."""
    site.model.answers.clear()
    page = new_page(storage_state=signed_in, service_workers="allow")
    page.goto(site.url)
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    page.wait_for_function("() => navigator.serviceWorker.controller?.state === 'activated'")
    # The language's own file, which the page had fetched before.
    page.wait_for_function("async () => !!(await caches.match(document.querySelector('[rel=modulepreload]').href))")
    return page


def test_what_was_read_can_be_read_without_a_network(site: Site, installed: Page) -> None:
    page = installed
    site.model.title = "Candles"
    site.model.answers["candle"] = says("It burns wax.")
    ask(page, "How does a candle burn?")
    answered(page, "It burns wax.")
    expect(history(page).filter(has_text="Candles")).to_be_visible()
    # The list too, which was fetched before there was anything in it.
    page.wait_for_function(
        f"""async () => {{
          const kept = Object.entries(await ({KEPT})());
          const has = (start, text) => kept.some(([path, body]) => path.startsWith(start) && body.includes(text));
          return has('/api/conversations?', 'Candles') && has('/api/conversations/', 'It burns wax.');
        }}"""
    )
    page.context.set_offline(True)
    page.reload()
    answered(page, "It burns wax.")
    expect(page.get_by_text("You are offline.")).to_be_visible()
    expect(page.get_by_role("button", name="Dismiss")).to_have_count(0)  # said once
    message = page.get_by_label("Message", exact=True)
    message.fill("And what of the wick?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.reload()
    expect(message).to_have_value("And what of the wick?")
    page.get_by_role("link", name="New chat").first.click()
    expect(page.get_by_role("heading", name="What is on your mind, Ada?")).to_be_visible()
    history(page).filter(has_text="Candles").click()
    answered(page, "It burns wax.")
    page.goto(f"{site.url}/c/{'0' * 32}")
    expect(page.get_by_text("This conversation is not on this device.")).to_be_visible()
    page.get_by_role("button", name="Ada Lovelace").click()
    page.get_by_role("menuitem", name="Settings").click()
    expect(page.get_by_role("heading", name="Profile")).to_be_visible()

    page.context.set_offline(False)
    history(page).filter(has_text="Candles").click()
    expect(page.get_by_text("You are offline.")).to_have_count(0)
    message.press("Enter")
    answered(page, "Hello there.")
    expect(turns(page)).to_have_count(4)

    # What was added elsewhere meanwhile is there when the server is back.
    page.wait_for_function(f"async () => JSON.stringify(await ({KEPT})()).includes('Hello there.')")
    page.context.set_offline(True)
    page.reload()
    answered(page, "Hello there.")
    asked = {"id": "f" * 32, "parent_id": last(page).get_attribute("id").removeprefix("m-"), "content": "Elsewhere"}
    sent = page.context.request.post(
        f"{page.url.replace('/c/', '/api/conversations/')}/messages", data=asked, headers={"X-Fireside": "1"}
    )
    assert sent.ok, sent.text()
    page.context.set_offline(False)
    page.evaluate(
        "() => dispatchEvent(new Event('online'))"
    )  # the browser's own comes too early here, and the next look late
    expect(turns(page)).to_have_count(6)
    expect(turns(page).nth(4)).to_have_text(re.compile("Elsewhere"))


def test_nothing_of_a_temporary_chat_is_kept_and_nothing_stays_behind(site: Site, installed: Page) -> None:
    page = installed
    ask(page, "Keep this")
    answered(page, "Hello there.")
    page.get_by_role("link", name="New chat").first.click()
    page.get_by_role("button", name="Temporary chat").click()
    site.model.answers["passing"] = says("Gone soon.")
    ask(page, "Something passing")
    expect(last(page)).to_contain_text("Gone soon.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    kept = page.evaluate(KEPT)
    assert any("Keep this" in text for text in kept.values())
    assert not any("passing" in text or "Gone soon" in text for text in kept.values())

    # Switched off, it is emptied and stays so.
    page.goto(f"{site.url}/settings/security")
    switch = page.get_by_label("Keep what I read in this browser")
    switch.uncheck()
    page.wait_for_function(f"async () => Object.keys(await ({KEPT})()).length === 0")
    page.reload()
    expect(switch).not_to_be_checked()
    assert page.evaluate(KEPT) == {}
    switch.check()
    page.goto(site.url)
    page.wait_for_function(f"async () => '/api/session' in await ({KEPT})()")

    # A session that was ended elsewhere takes it along; so does signing out.
    page.context.clear_cookies()
    page.reload()
    expect(page.get_by_role("heading", name="Welcome back")).to_be_visible()
    page.wait_for_function(f"async () => Object.keys(await ({KEPT})()).length === 0")
    page.get_by_label("E-mail address").fill("ada@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_function(f"async () => '/api/session' in await ({KEPT})()")
    page.get_by_role("button", name="Ada Lovelace").click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_role("heading", name="Welcome back")).to_be_visible()
    assert page.evaluate(KEPT) == {}
    page.context.set_offline(True)
    page.reload()
    expect(page.get_by_text("The server cannot be reached.")).to_be_visible()


def test_a_new_version_offers_itself(site: Site, installed: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page = installed
    page.reload()  # a page that has begun with a service worker
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    page.wait_for_function("() => navigator.serviceWorker.controller")
    site.model.answers["long"] = slowly("One. " * 60)
    ask(page, "Something long")
    expect(last(page)).to_contain_text("One.")

    build = served._file

    def another(path: Any) -> Any:
        file = build(path)
        if path.name != "sw.js":
            return file
        return served._File(file.content + b"// newer", None, file.media_type, 'W/"newer"')

    monkeypatch.setattr(served, "_file", another)
    page.evaluate("navigator.serviceWorker.getRegistration().then(registration => registration.update())")
    notice = page.get_by_text("There is a new version of Fireside.")
    expect(notice).to_be_visible()
    expect(last(page)).to_contain_text("One. One. One.")  # nothing was torn away
    page.get_by_role("button", name="Reload").click()
    expect(notice).to_have_count(0)
    answered(page, "One. One.")
