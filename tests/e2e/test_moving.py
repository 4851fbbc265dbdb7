"""Sharing a conversation, and bringing some from elsewhere."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import PASSWORD, Complaints, Site
from tests.e2e.test_accessibility import AXE, check
from tests.e2e.test_journeys import answered, ask, choose, history, last, turns
from tests.e2e.test_reading import DOCUMENT
from tests.server.moving.exports import branched, zipped
from tests.server.scripted_app import says

WIDE = "| one | two | three | four | five | six | seven |\n|" + "---|" * 7 + "\n" + "| some words " * 7 + "|\n\n"


def shared(site: Site, page: Page) -> str:
    """The address of a link to a conversation with a document in it."""
    site.model.answers["document"] = says(WIDE + DOCUMENT)
    ask(page, "A shared document\nin two lines")
    answered(page, "Done.")
    page.get_by_role("button", name="Share", exact=True).click()
    page.get_by_label("The link is valid").select_option("for a week")
    page.get_by_role("button", name="Create link").click()
    link = page.get_by_label("Link", exact=True)
    expect(link).to_have_value(re.compile(f"^{re.escape(site.url)}/s/[\\w-]{{43}}$"))
    return link.input_value()


def test_an_update_leaves_a_link_the_days_it_had(site: Site, page: Page) -> None:
    shared(site, page)
    valid = page.get_by_label("The link is valid")
    for expected in ("valid until", "valid until"):
        expect(valid.locator("option:checked")).to_contain_text(expected)
        with page.expect_response(re.compile("/update$")) as answer:
            page.get_by_role("button", name="Update link").click()
        found = answer.value.json()
        left = datetime.fromisoformat(found["expires_at"]) - datetime.fromisoformat(found["created_at"])
        assert left < timedelta(days=8)
    valid.select_option("until you revoke it")
    page.get_by_role("button", name="Update link").click()
    expect(valid.locator("option")).to_have_count(4)
    expect(valid.locator("option:checked")).to_have_text("until you revoke it")
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(valid.locator("option:checked")).to_have_text("for a month")  # of the next one


def forgive_missing(complaints: Complaints) -> None:
    """Browsers report a page that is answered with 404."""
    complaints.said = [said for said in complaints.said if "status of 404" not in said]


def test_a_link_is_read_without_javascript_until_it_is_revoked(
    site: Site, page: Page, new_page: Callable[..., Page], complaints: Complaints
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    address = shared(site, page)
    page.get_by_role("dialog").get_by_role("button", name="Copy").click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == address

    reader = new_page(java_script_enabled=False, viewport={"width": 390, "height": 800})
    response = reader.goto(address)
    assert response and response.status == 200 and reader.context.cookies() == []
    expect(reader.get_by_role("article")).to_have_count(2)
    expect(reader.get_by_role("heading", name="Heading")).to_be_visible()
    expect(reader.locator("pre").first).to_contain_text('print("hello")')
    expect(reader.locator("td").last).to_have_text("2")

    page.keyboard.press("Escape")
    page.goto(f"{site.url}/settings/shares")
    row = page.get_by_role("listitem").filter(has=page.get_by_role("button", name="Revoke"))
    row.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("You have shared nothing.")).to_be_visible()
    response = reader.reload()
    assert response and response.status == 404
    expect(reader.get_by_role("heading", name="There is nothing here")).to_be_visible()
    forgive_missing(complaints)


def test_a_visitor_signs_in_and_goes_on_with_it(site: Site, page: Page, new_page: Callable[..., Page]) -> None:
    address = shared(site, page)
    visitor = new_page()
    visitor.goto(address)
    visitor.get_by_role("link", name="Continue this conversation").click()
    visitor.get_by_label("E-mail address").fill("ada@example.com")
    visitor.get_by_label("Password").fill(PASSWORD)
    visitor.get_by_role("button", name="Sign in").click()
    go_on = visitor.get_by_role("button", name="Continue this conversation")
    expect(go_on).to_be_visible()
    visitor.reload()
    expect(go_on).to_be_visible()
    go_on.click()
    expect(turns(visitor)).to_have_count(2)
    assert re.search(r"/c/[0-9a-f]{32}$", visitor.url) and visitor.url != page.url
    ask(visitor, "Go on")
    answered(visitor, "Hello there.")
    page.reload()
    expect(turns(page)).to_have_count(2)


@pytest.mark.skipif(not AXE.exists(), reason="axe comes with web/'s packages: cd web && npm ci")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_shared_page_is_accessible(
    site: Site, page: Page, new_page: Callable[..., Page], complaints: Complaints, scheme: str
) -> None:
    address = shared(site, page)
    check(page)
    reader = new_page(color_scheme=scheme, locale="en-GB", bypass_csp=True)  # for axe, which is script
    reader.goto(address)
    check(reader)
    dark = reader.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(25, 23, 21)"
    assert dark == (scheme == "dark")
    reader.goto(address[:-1])
    check(reader)
    forgive_missing(complaints)


def test_an_import_brings_branches_and_tells_what_it_left_out(site: Site, page: Page, tmp_path: Path) -> None:
    file = tmp_path / "chatgpt export.zip"
    other = branched(conversation_id="2", title="Other", update_time=1756000000)
    file.write_bytes(
        zipped({"conversations-000.json": [branched()], "conversations-001.json": [other, {"title": "Odd"}]})
    )
    page.goto(f"{site.url}/settings/data")
    page.get_by_label("Choose a file").set_input_files(file)
    report = page.locator(".report")
    expect(report).to_contain_text("Imported chatgpt export.zip.")
    expect(report).to_contain_text("2 new conversations")
    report.get_by_text("Of a kind that is not known here (1)").click()
    expect(report).to_contain_text("Odd · conversations-001.json")
    if AXE.exists():
        check(page)
    history(page).filter(has_text="Candles").click()
    expect(last(page)).to_contain_text("The vapour burns.")
    last(page).get_by_role("button", name="Next version").click()
    expect(last(page)).to_contain_text("Gladly.")
    turns(page).first.hover()
    turns(page).first.get_by_role("button", name="Previous version").click()
    expect(last(page)).to_contain_text("By its wick.")

    page.goto(f"{site.url}/settings/data")  # and once more, by dropping it
    expect(page.locator(".report")).to_contain_text("2 new conversations")  # of the last time
    data = page.evaluate_handle(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], 'again.zip'));
            return data;
        }""",
        list(file.read_bytes()),
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": data})
    expect(page.locator(".report")).to_contain_text("2 that were here already")


def test_a_long_import_shows_how_far_it_is_and_can_be_cancelled(site: Site, page: Page, tmp_path: Path) -> None:
    many = [branched(conversation_id=f"many {number}", title=f"Many {number}") for number in range(4000)]
    file = tmp_path / "many.json"
    file.write_text(json.dumps(many))
    page.goto(f"{site.url}/settings/data")
    page.get_by_label("Choose a file").set_input_files(file)
    bar = page.get_by_role("progressbar", name="Reading many.json")
    expect(bar).to_be_visible()
    page.wait_for_function("() => document.querySelector('progress')?.value > 0.001")
    page.reload()
    expect(bar).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".report")).to_contain_text("was cancelled")
    expect(history(page).filter(has_text="Many").first).to_be_visible()


def test_exports_are_downloads(site: Site, page: Page) -> None:
    site.model.title = "To take along"
    ask(page, "Something to keep")
    answered(page, "Hello there.")
    expect(history(page).filter(has_text="To take along")).to_be_visible()
    choose(page, "To take along", "Export")
    with page.expect_download() as download:
        page.get_by_role("link", name="Markdown").click()
    assert download.value.suggested_filename == "To take along.md"
    assert "Something to keep" in Path(download.value.path()).read_text()
    page.goto(f"{site.url}/settings/data")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        assert {"profile.json", "prompts.json", "projects.json"} <= set(archive.namelist())


def test_where_sharing_is_off_nothing_offers_it(site: Site, page: Page) -> None:
    assert httpx.get(f"{site.url}/api/session").json()["sharing"] is True

    def off(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"sharing": False})

    page.route("**/api/session", off)
    page.reload()
    ask(page, "Nothing to share")
    answered(page, "Hello there.")
    expect(page.get_by_role("button", name="Share", exact=True)).to_have_count(0)
    page.goto(f"{site.url}/settings")
    expect(page.get_by_role("link", name="Your data")).to_be_visible()
    expect(page.get_by_role("link", name="Shared links")).to_have_count(0)
