"""The composer, the messages that wait, copying, commands, and conversations of any length."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.e2e.conftest import Site, slowly
from tests.e2e.test_journeys import LONG, answered, ask, last, turns
from tests.server.scripted_app import says

FILES: list[Any] = [
    {"name": "data.csv", "mimeType": "text/csv", "buffer": b"a,b\r\n1,2\r\n"},
    {"name": "picture.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\0"},
    {"name": "notes.md", "mimeType": "text/markdown", "buffer": "```\nGrün\n```".encode()},
]
DROP = """text => {
    const data = new DataTransfer();
    data.items.add(new File([text], 'dropped.txt', { type: 'text/plain' }));
    for (const type of ['dragover', 'drop']) {
        const event = new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
        document.querySelector('main').dispatchEvent(event);
    }
}"""
PASTE = """text => {
    const clipboardData = new DataTransfer();
    clipboardData.setData('text/plain', text);
    const field = document.querySelector('#composer');
    if (field.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true })))
        document.execCommand('insertText', false, text);
}"""


def message(page: Page) -> Locator:
    return page.get_by_label("Message", exact=True)


def waiting(page: Page) -> Locator:
    return page.get_by_role("region", name="Waiting to be sent").get_by_role("listitem")


def test_files_go_along_with_a_message(site: Site, page: Page) -> None:
    page.locator("input[type=file]").set_input_files(FILES)
    expect(page.get_by_text("“picture.png” is not a text file. Only text can be read here.")).to_be_visible()
    page.evaluate(DROP, "dropped")
    chips = page.get_by_role("form").get_by_role("listitem")
    expect(chips).to_have_text(["data.csv", "notes.md", "dropped.txt"])
    page.get_by_role("button", name="Remove dropped.txt").click()
    message(page).fill("What is in them?")
    page.reload()
    expect(chips).to_have_text(["data.csv", "notes.md"])
    expect(message(page)).to_have_value("What is in them?")
    page.keyboard.press("Enter")
    answered(page, "Hello there.")
    expect(chips).to_have_count(0)
    assert site.model.questions[-1] == (
        'What is in them?\n\n```csv file="data.csv"\na,b\n1,2\n```\n\n'
        '````markdown file="notes.md"\n```\nGrün\n```\n````'
    )
    question = turns(page).first
    expect(question.locator("p")).to_have_text("What is in them?")
    expect(question.get_by_text("Grün")).to_have_count(0)
    question.get_by_text("notes.md").click()
    expect(question.locator("pre")).to_have_text("```\nGrün\n```")
    page.reload()
    expect(question.get_by_text("data.csv")).to_be_visible()
    expect(chips).to_have_count(0)


def test_a_long_paste_can_become_a_file(site: Site, page: Page) -> None:
    page.evaluate(PASTE, "short")
    expect(message(page)).to_have_value("short")
    expect(page.get_by_role("button", name="Make it a file")).to_have_count(0)
    page.evaluate(PASTE, "long line\n" * 500)
    page.get_by_role("button", name="Make it a file").click()
    expect(message(page)).to_have_value("short")
    expect(page.get_by_role("form").get_by_role("listitem")).to_have_text(["pasted.txt"])


def test_messages_wait_for_the_answer_before_them(site: Site, page: Page) -> None:
    site.model.answers["long"] = slowly(LONG)
    ask(page, "Something long to wait for")
    expect(last(page)).to_contain_text("Sentence 1 of")
    for text in ("first", "second", "third"):
        ask(page, text)
    expect(waiting(page)).to_have_text(["first", "second", "third"])
    waiting(page).nth(1).get_by_role("button", name="Remove").click()
    waiting(page).nth(1).get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit").fill("fourth")
    page.keyboard.press("Control+Enter")
    page.reload()
    expect(waiting(page)).to_have_text(["first", "fourth"])
    expect(turns(page)).to_have_count(6)
    answered(page, "Hello there.")
    assert site.model.questions[-2:] == ["first", "fourth"]
    expect(waiting(page)).to_have_count(0)
    expect(turns(page).nth(2)).to_contain_text("first")


def test_after_a_stop_a_person_says_when(site: Site, page: Page) -> None:
    site.model.answers["long"] = slowly(LONG)
    ask(page, "Something long to stop")
    expect(last(page)).to_contain_text("Sentence 1 of")
    ask(page, "And then?")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("You stopped this answer.")).to_be_visible()
    expect(page.get_by_text("Not sent yet")).to_be_visible()
    page.wait_for_timeout(150)
    expect(turns(page)).to_have_count(2)
    page.get_by_role("button", name="Send now").click()
    answered(page, "Hello there.")
    expect(turns(page)).to_have_count(4)


def test_copying(site: Site, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    site.model.answers["bold"] = says("A **bold** word.\n\n- and a list\n")
    ask(page, "Something bold")
    answered(page, "bold")
    read = "navigator.clipboard.readText()"
    last(page).get_by_role("button", name="Copy", exact=True).click()
    expect(last(page).get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate(read) == "A **bold** word.\n\n- and a list\n"
    last(page).get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Copy as plain text").click()
    expect(page.get_by_role("status").get_by_text("Copied")).to_be_visible()
    assert page.evaluate(read) == "A bold word.\n\n- and a list"
    page.get_by_role("button", name="Options for this conversation").click()
    page.get_by_role("menuitem", name="Copy conversation as plain text").click()
    expect(page.get_by_role("status").get_by_text("Copied")).to_have_count(2)
    assert page.evaluate(read) == "You:\n\nSomething bold\n\nAnswer:\n\nA bold word.\n\n- and a list\n"


def test_commands_by_name(site: Site, page: Page) -> None:
    def command(letters: str) -> None:
        page.keyboard.press("Control+k")
        page.keyboard.type(letters)
        page.keyboard.press("Enter")

    command("dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    command("administration health")
    expect(page.get_by_role("heading", name="Health")).to_be_visible()
    command("settings prompts")
    expect(page.get_by_role("heading", name="Prompts")).to_be_visible()
    page.get_by_label("Name").fill("shorten")
    page.get_by_label("Text").fill("Shorten that:")
    page.get_by_role("button", name="Add prompt").click()
    page.get_by_role("button", name="Edit /shorten").click()
    expect(page.get_by_label("Text")).to_be_focused()
    page.get_by_label("Text").fill("Shorten this:")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Delete /shorten")).to_have_count(1)
    command("temporary")
    expect(page.get_by_text("Temporary: nothing of this chat")).to_be_visible()
    command("new chat")
    expect(page.get_by_text("The model runs on your own server.")).to_be_visible()
    # A prompt of the library, by keyboard.
    page.keyboard.type("/sh")
    expect(page.get_by_role("option")).to_have_text(["/shortenShorten this:"])
    expect(message(page)).to_have_attribute("aria-activedescendant", "composer-prompt-0")
    page.keyboard.press("Tab")
    expect(message(page)).to_have_value("Shorten this:")
    page.keyboard.type(" a text")
    page.keyboard.press("Enter")
    answered(page, "Hello there.")
    command("pin")
    expect(page.get_by_role("region", name="Pinned").get_by_role("link")).to_have_count(1)
    command("unpin")
    expect(page.get_by_role("region", name="Pinned")).to_have_count(0)


def test_menus_follow_the_pattern(site: Site, page: Page) -> None:
    """https://www.w3.org/WAI/ARIA/apg/patterns/menu-button/"""
    page.get_by_role("button", name="Ada Lovelace").focus()
    page.keyboard.press("Enter")
    items = page.get_by_role("menuitem")
    expect(items.first).to_be_focused()
    page.keyboard.press("End")
    expect(items.last).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(items.first).to_be_focused()
    page.keyboard.press("s")
    expect(page.get_by_role("menuitem", name="Sign out")).to_be_focused()
    page.keyboard.press("Home")
    expect(items.first).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(items).to_have_count(0)


def _long(route: Route, count: int) -> None:
    """The conversation as if it had `count` messages."""
    tree = route.fetch().json()
    question, answer = tree["messages"][:2]
    for number in range(1, count // 2):
        for one in (question, answer):
            id = f"{number:08x}{one['id'][8:]}"
            text = (
                f"Question {number}"
                if one is question
                else f"Answer {number}.\n\n- one\n- two\n\n```python\nx = 1\n```\n"
            )
            parent = tree["messages"][-1]["id"]
            tree["messages"].append(one | {"id": id, "parent_id": parent, "content": text})
    tree["current_leaf_id"] = tree["messages"][-1]["id"]
    route.fulfill(body=json.dumps(tree), content_type="application/json")


def _ask_below(route: Route, parent: str) -> None:
    """What is asked below a message that only the page knows is asked below `parent`."""
    asked = route.request.post_data_json
    answer = route.fetch(post_data=json.dumps(asked | {"parent_id": parent}))
    started = answer.json()
    started["message"]["parent_id"] = asked["parent_id"]
    route.fulfill(response=answer, json=started)


def test_a_conversation_of_a_thousand_messages_stays_light(site: Site, page: Page) -> None:
    """And what is looked at stays where it is while turns come and go around it."""
    site.model.answers["long"] = slowly("- one\n- **two**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" * 12 + "Done.")
    ask(page, "The first question")
    answered(page, "Hello there.")
    page.wait_for_url("**/c/*")
    conversation = page.url.rpartition("/")[2]
    tree = page.request.get(f"{site.url}/api/conversations/{conversation}").json()
    page.route(f"**/api/conversations/{conversation}", lambda route: _long(route, 1000))
    page.route("**/messages", lambda route: _ask_below(route, tree["current_leaf_id"]))
    page.reload()
    expect(last(page)).to_contain_text("Answer 499.")
    inspector = page.context.new_cdp_session(page)

    def counted(kind: str) -> int:
        """All that Chromium has of them, what is in no page any more but held by something among them."""
        inspector.send("HeapProfiler.collectGarbage")
        count: int = inspector.send("Memory.getDOMCounters")[kind]
        return count

    assert counted("nodes") < 3000
    documents = counted("documents")
    ask(page, "Something long")
    answered(page, "Done.")
    assert counted("nodes") < 3000
    assert inspector.send("Memory.getDOMCounters")["documents"] <= documents  # none for each rendering
    main = page.get_by_role("main", name="Conversation")
    main.hover()
    for step in (-700, -700, 400, -1000, 300, -900, -900, 1300) * 4:
        place = main.evaluate(
            """view => {
                const top = view.getBoundingClientRect().top;
                const isSeen = turn => turn.getBoundingClientRect().bottom > top + 300;
                window.seen = [...view.querySelectorAll('article')].find(isSeen);
                window.scrolled = new Promise(done => {
                    view.addEventListener('scroll', () => setTimeout(done, 40), { once: true });
                });
                return window.seen.getBoundingClientRect().top;
            }"""
        )
        page.mouse.wheel(0, step)
        page.evaluate("window.scrolled")
        assert abs(page.evaluate("window.seen.getBoundingClientRect().top") - place + step) <= 2
        assert counted("nodes") < 3000
    assert turns(page).filter(has_text="Done.").count() == 0  # it went again
    page.keyboard.press("Control+k")
    page.keyboard.type("first message")
    page.keyboard.press("Enter")
    expect(turns(page).first).to_contain_text("The first question")
    expect(turns(page).first).to_be_focused()
    assert counted("nodes") < 3000
    # What is being edited is not taken away.
    turns(page).first.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit").fill("half a thought")
    main.hover()
    for _ in range(8):
        page.mouse.wheel(0, 1500)
        page.wait_for_timeout(30)
    expect(page.get_by_role("textbox", name="Edit")).to_have_value("half a thought")
    page.get_by_role("button", name="Go to the latest").click()
    expect(last(page)).to_contain_text("Done.")


def test_sentences_are_announced_once(site: Site, page: Page) -> None:
    text = "Yes, yes. It is **so**. It is so.\n\n- one\n- two\n\nThe end"
    site.model.answers["list"] = says(text, delay=0.03)  # sentences that come together are said together
    page.evaluate(
        """() => {
            window.said = [];
            const region = document.querySelector('.conversation > [aria-live]');
            const note = ({ addedNodes }) => addedNodes.forEach(node => said.push(node.textContent));
            const all = { childList: true, subtree: true, characterData: true };
            new MutationObserver(changes => changes.forEach(note)).observe(region, all);
        }"""
    )
    ask(page, "A list")
    answered(page, "The end")
    said = [text for text in page.evaluate("said") if text]
    assert len(said) >= 4
    assert " ".join(" ".join(said).split()) == "Yes, yes. It is so. It is so. - one - two The end"
    page.get_by_role("link", name="New chat").first.click()
    expect(page.get_by_text("The end")).to_have_count(0)


def test_a_key_is_made_for_as_long_as_it_is_wanted(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/settings/keys")
    page.get_by_label("What it is for").fill("A script")
    page.get_by_label("Valid for").select_option("30 days")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("listitem").filter(has_text="A script")).to_contain_text("valid until")


@pytest.mark.parametrize("path", ["/settings/nothing", "/admin/nothing", "/continue"])
def test_a_wrong_address_is_called_one(site: Site, page: Page, path: str) -> None:
    page.goto(site.url + path)
    expect(page.get_by_role("heading", name="There is no such page.")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_have_count(0)
