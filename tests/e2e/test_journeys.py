"""What a person does with the app, from the first start on."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, Route, expect

from fireside.engine.client import EngineBusy
from fireside.engine.scripted import ScriptedAnswer
from tests.e2e.conftest import PASSWORD, Site, slowly
from tests.server.scripted_app import says

LONG = " ".join(f"Sentence {number} of a long answer." for number in range(1, 26))


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def turns(page: Page) -> Locator:
    return page.get_by_role("article")


def last(page: Page) -> Locator:
    return turns(page).last


def answered(page: Page, text: str) -> None:
    expect(last(page)).to_contain_text(text)
    expect(last(page).get_by_role("button", name="Answer again")).to_be_visible()


def history(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Conversations").get_by_role("link")


def choose(page: Page, title: str, action: str) -> None:
    """From the menu of a conversation in the sidebar."""
    history(page).filter(has_text=title).hover()
    page.get_by_role("button", name=f"Options for {title}").click()
    page.get_by_role("menuitem", name=action, exact=True).click()


def rename_and_pin(site: Site, page: Page) -> None:
    """A new conversation, which the model has called Plants: Cacti from here on."""
    site.model.title = "Plants"
    ask(page, "About plants")
    answered(page, "Hello there.")
    expect(history(page).filter(has_text="Plants")).to_be_visible()
    choose(page, "Plants", "Rename")
    page.get_by_role("textbox", name="Rename conversation").fill("Cacti")
    page.keyboard.press("Enter")
    choose(page, "Cacti", "Pin")


def test_from_the_first_start_to_the_first_answer(empty_site: Site, new_page: Callable[..., Page]) -> None:
    page = new_page()
    empty_site.model.title = "Candles"
    page.goto(empty_site.url)
    expect(page.get_by_text("Open the one-time link")).to_be_visible()
    page.goto(empty_site.setup_link)
    page.get_by_label("Name").fill("Ada Lovelace")
    page.get_by_label("E-mail address").fill("Ada@Example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("heading", name="What is on your mind, Ada?")).to_be_visible()
    assert page.url == f"{empty_site.url}/"  # the secret of the link is gone from it
    ask(page, "How does a candle burn?")
    answered(page, "Hello there.")
    expect(turns(page)).to_have_count(2)
    expect(history(page)).to_have_text(["Candles"])
    expect(page).to_have_title("Candles · Fireside")

    page.get_by_role("button", name="Ada Lovelace").click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_role("heading", name="Welcome back")).to_be_visible()
    page.get_by_label("E-mail address").fill("ada@example.com")
    page.get_by_label("Password").fill("something else")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(history(page)).to_have_text(["Candles"])


def test_a_reload_in_mid_answer_loses_nothing(site: Site, page: Page) -> None:
    site.model.answers["long"] = slowly(LONG)
    ask(page, "Something long")
    expect(last(page)).to_contain_text("Sentence 2 of")
    page.reload()
    expect(last(page)).to_contain_text("Sentence 3 of")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    answered(page, "Sentence 25 of a long answer.")
    assert last(page).locator(".prose").inner_text() == LONG
    expect(turns(page)).to_have_count(2)


def test_a_lost_connection_loses_and_doubles_nothing(site: Site, page: Page) -> None:
    asked: list[str] = []

    def cut(route: Route) -> None:
        """The first connection ends in the middle of an event, the next one brings nothing at all."""
        asked.append(route.request.url.partition("/events")[2])
        if len(asked) == 1:
            body = route.fetch().text()
            route.fulfill(body=body[: len(body) // 2], content_type="text/event-stream")
        elif len(asked) == 2:
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/events*", cut)
    site.model.answers["long"] = slowly(LONG)
    ask(page, "Something long on a train")
    answered(page, "Sentence 25 of a long answer.")
    assert last(page).locator(".prose").inner_text() == LONG
    assert asked[0] == "" and re.fullmatch(r"\?after=[1-9]\d*", asked[1]) and asked[2] == asked[1]


def test_two_tabs_see_the_same_stream(site: Site, page: Page) -> None:
    site.model.answers["long"] = slowly(LONG)
    ask(page, "Something long again")
    page.wait_for_url("**/c/*")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("button", name="Stop")).to_be_visible()
    expect(other.get_by_role("article").last).to_contain_text("Sentence 5 of")
    other.get_by_role("button", name="Stop").click()
    for tab in (other, page):
        expect(tab.get_by_text("You stopped this answer.")).to_be_visible()
    assert last(page).locator(".prose").inner_text() == last(other).locator(".prose").inner_text()


def test_a_stopped_answer_can_be_continued(site: Site, page: Page) -> None:
    site.model.answers["long"] = slowly(LONG)
    ask(page, "Something long to stop")
    expect(last(page)).to_contain_text("Sentence 2 of")
    page.keyboard.press("Escape")
    expect(page.get_by_text("You stopped this answer.")).to_be_visible()
    before = last(page).locator(".prose").inner_text()
    assert LONG.startswith(before) and len(before) < len(LONG)
    site.model.answers["long"] = says(" And so on.")
    page.get_by_role("button", name="Continue").click()
    expect(last(page)).to_contain_text("And so on.")
    assert last(page).locator(".prose").inner_text() == f"{before} And so on."
    expect(turns(page)).to_have_count(2)


def test_branches_of_answers_and_of_questions(site: Site, page: Page) -> None:
    site.model.answers["colour"] = says("Red.")
    ask(page, "Which colour?")
    answered(page, "Red.")
    site.model.answers["colour"] = says("Blue.")
    page.get_by_role("button", name="Answer again").click()
    answered(page, "Blue.")
    expect(last(page)).to_contain_text("2/2")
    page.get_by_role("button", name="Previous version").click()
    answered(page, "Red.")
    page.reload()
    answered(page, "Red.")  # the branch that was last looked at

    ask(page, "Why?")
    answered(page, "Hello there.")
    turns(page).first.hover()
    turns(page).first.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit").fill("Which shape?")
    site.model.answers["shape"] = says("Round.")
    turns(page).first.get_by_role("button", name="Send").click()
    answered(page, "Round.")
    expect(turns(page)).to_have_count(2)
    turns(page).first.get_by_role("button", name="Previous version").click()
    expect(turns(page)).to_have_count(4)
    expect(turns(page).first).to_contain_text("Which colour?")


def test_a_failed_answer_can_be_tried_again(site: Site, page: Page) -> None:
    site.model.answers["fragile"] = ScriptedAnswer(error=EngineBusy("the engine is out of breath"))
    ask(page, "Something fragile")
    expect(page.get_by_text("The server is writing as many answers as it can.")).to_be_visible()
    site.model.answers["fragile"] = says("All of it.")
    page.get_by_role("button", name="Try again").click()
    answered(page, "All of it.")


def test_search_lands_on_the_message_on_its_branch(site: Site, page: Page) -> None:
    site.model.answers["animal"] = says("An aardvark digs.")
    ask(page, "Name an animal")
    answered(page, "aardvark")
    site.model.answers["animal"] = says("A bee flies.")
    page.get_by_role("button", name="Answer again").click()
    answered(page, "A bee flies.")
    page.goto(site.url)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Search conversations").fill("aardv")
    expect(page.get_by_role("option")).to_contain_text("An aardvark digs.")
    page.keyboard.press("Enter")
    expect(last(page)).to_contain_text("An aardvark digs.")
    expect(last(page)).to_be_focused()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Search conversations").fill("zebra%_")
    expect(page.get_by_text("Nothing found for “zebra%_”.")).to_be_visible()


def test_renaming_pinning_archiving_deleting(site: Site, page: Page) -> None:
    rename_and_pin(site, page)
    expect(page.get_by_role("region", name="Pinned").get_by_role("link")).to_have_text(["Cacti"])
    page.reload()
    expect(page.get_by_role("region", name="Pinned").get_by_role("link")).to_have_text(["Cacti"])
    choose(page, "Cacti", "Archive")
    expect(history(page).filter(has_text="Cacti")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    choose(page, "Cacti", "Delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(history(page).filter(has_text="Cacti")).to_have_count(0)
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    expect(history(page).filter(has_text="Cacti")).to_have_count(0)


def test_a_project_is_seen_and_outlives_a_reload(site: Site, page: Page) -> None:
    page.get_by_role("button", name="Listed: All conversations").click()
    page.get_by_role("menuitem", name="New project").click()
    page.get_by_label("Name of the project").fill("Pirates")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Listed: Pirates")).to_be_visible()
    page.reload()
    expect(page.get_by_role("main").get_by_text("Pirates")).to_be_visible()
    ask(page, "Ahoy")
    answered(page, "Hello there.")
    expect(page.get_by_role("banner").get_by_text("Pirates")).to_be_visible()
    page.get_by_role("button", name="Options for this conversation").click()
    page.get_by_role("group", name="Move to project").get_by_role("menuitemradio", name="Pirates").click()  # out of it
    expect(page.get_by_role("banner").get_by_text("Pirates")).to_have_count(0)
    page.keyboard.press("Control+k")
    page.keyboard.type("all conversations")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Listed: All conversations")).to_be_visible()


def test_a_draft_survives_a_reload_and_belongs_to_its_conversation(site: Site, page: Page) -> None:
    ask(page, "A first question")
    answered(page, "Hello there.")
    message = page.get_by_label("Message", exact=True)
    message.fill("half a thought")
    page.reload()
    expect(message).to_have_value("half a thought")
    page.get_by_role("link", name="New chat").first.click()
    expect(message).to_have_value("")
    page.go_back()
    expect(message).to_have_value("half a thought")


def test_a_temporary_chat_leaves_no_trace(site: Site, page: Page) -> None:
    ask(page, "Something to be found there")
    answered(page, "Hello there.")
    page.get_by_role("link", name="New chat").first.click()
    before = history(page).count()  # which has come: what was asked is in it
    assert before
    page.get_by_role("button", name="Temporary chat").click()
    site.model.answers["secret"] = lambda prompt: says(f"Heard {prompt.count('im_start')} turns.")
    ask(page, "A secret")
    expect(last(page)).to_contain_text("Heard 2 turns.")
    ask(page, "Another secret")
    expect(last(page)).to_contain_text("Heard 4 turns.")
    assert page.url == f"{site.url}/"
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    expect(turns(page)).to_have_count(0)
    expect(history(page)).to_have_count(before)


def test_parameters_and_instructions_reach_the_model(site: Site, page: Page) -> None:
    prompts: list[str] = []

    def answer(prompt: str):  # type: ignore[no-untyped-def]
        prompts.append(prompt)
        return says("Understood.")

    site.model.answers["weather"] = answer
    page.get_by_role("button", name="Parameters").click()
    page.get_by_label("System prompt").fill("Speak like a sailor.")
    page.get_by_role("button", name="Save").click()
    ask(page, "The weather?")
    answered(page, "Understood.")
    assert "Speak like a sailor." in prompts[0]


def test_everything_works_by_keyboard(site: Site, page: Page) -> None:
    ask(page, "By keyboard")
    answered(page, "Hello there.")
    page.get_by_role("link", name="Skip to the message field").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.press("Control+Shift+o")
    expect(page.get_by_role("heading", name=re.compile("What is on your mind"))).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.press("Control+/")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Ada Lovelace").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Settings")).to_be_focused()
    page.keyboard.press("End")  # but one, "Sign out"
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("menuitem", name="Administration")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Ada Lovelace")).to_be_focused()
