"""Between conversations, and to the settings, while something is under way: nothing gets into the wrong place."""

from __future__ import annotations

from playwright.sync_api import Page, Route, expect

from tests.e2e.conftest import Site, slowly
from tests.e2e.test_journeys import LONG, answered, ask, history, last, turns
from tests.e2e.test_writing import message, waiting
from tests.server.scripted_app import says


def test_another_conversation_is_opened_before_the_server_has_answered(site: Site, page: Page) -> None:
    site.model.answers["candle"] = says("It burns wax.")
    for title in ("Candles", "Lamps"):
        site.model.title = title
        page.get_by_role("link", name="New chat").first.click()
        ask(page, f"About {title}")
        answered(page, "Hello there.")
        expect(history(page).filter(has_text=title)).to_be_visible()
    message(page).fill("the lamps' draft")
    candles, lamps = (history(page).filter(has_text=title) for title in ("Candles", "Lamps"))
    held: list[Route] = []

    def hold(pattern: str) -> None:
        page.route(pattern, lambda route: held.append(route))

    def release(pattern: str) -> None:
        held.pop().continue_()
        page.unroute(pattern)

    # A message on its way.
    candles.click()
    expect(turns(page).first).to_contain_text("Candles")
    hold("**/messages")
    ask(page, "How does a candle burn?")
    lamps.click()
    expect(turns(page).first).to_contain_text("Lamps")
    expect(message(page)).to_have_value("the lamps' draft")
    with page.expect_response("**/messages"):
        release("**/messages")
    page.wait_for_timeout(100)
    expect(turns(page)).to_have_count(2)
    expect(message(page)).to_have_value("the lamps' draft")
    page.keyboard.press("Enter")
    answered(page, "Hello there.")
    expect(turns(page)).to_have_count(4)
    candles.click()
    answered(page, "It burns wax.")
    expect(turns(page)).to_have_count(4)
    expect(message(page)).to_have_value("")

    # A conversation on its way: what is typed meanwhile is its draft.
    path = page.url.partition("/c/")[2]
    page.get_by_role("link", name="New chat").first.click()
    hold(f"**/api/conversations/{path}")
    candles.click()
    message(page).fill("typed too early")
    release(f"**/api/conversations/{path}")
    expect(turns(page)).to_have_count(4)
    expect(message(page)).to_have_value("typed too early")
    page.get_by_role("link", name="New chat").first.click()
    expect(message(page)).to_have_value("")


def test_what_is_sent_while_a_conversation_is_fetched_goes_into_it(site: Site, page: Page) -> None:
    ask(page, "The first question")
    answered(page, "Hello there.")
    page.wait_for_url("**/c/*")
    fetched = f"**/api/conversations/{page.url.rpartition('/')[2]}"
    held: list[Route] = []
    page.route(fetched, lambda route: held.append(route))
    page.reload()
    ask(page, "Too early?")
    ask(page, "And one more")
    expect(message(page)).to_have_value("")
    expect(waiting(page)).to_have_text(["Too early?", "And one more"])
    expect(page.get_by_text("Sent when the conversation has loaded")).to_be_visible()
    held.pop().continue_()
    page.unroute(fetched)
    expect(turns(page)).to_have_count(6)
    answered(page, "Hello there.")
    expect(waiting(page)).to_have_count(0)
    assert site.model.questions[-2:] == ["Too early?", "And one more"]


def _restarting(route: Route) -> None:
    models = route.fetch().json()
    route.fulfill(json=models | {"items": [model | {"state": "restarting"} for model in models["items"]]})


def test_escape_closes_what_is_open_and_answers_end_behind_the_settings(site: Site, page: Page) -> None:
    site.model.answers["long"] = slowly(LONG * 2)
    ask(page, "Something long")
    expect(last(page)).to_contain_text("Sentence 1 of")
    page.route("**/api/models", _restarting)
    page.get_by_role("button", name="Model: tiny").click()
    expect(page.get_by_role("menuitemradio")).to_have_text(["tinyRestarting"])
    expect(page.get_by_role("menuitemradio")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("menuitemradio")).to_have_count(0)
    page.keyboard.press("Control+/")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Control+k")
    expect(page.get_by_role("dialog")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    composing = "new KeyboardEvent('keydown', { key: 'Escape', isComposing: true, bubbles: true, cancelable: true })"
    message(page).evaluate(f"field => field.dispatchEvent({composing})")
    page.wait_for_timeout(100)
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    message(page).press("Escape")
    expect(page.get_by_text("You stopped this answer.")).to_be_visible()

    site.model.answers["short"] = slowly(LONG[:400])
    ask(page, "Something short")
    expect(turns(page)).to_have_count(4)
    expect(last(page)).to_contain_text("Sentence 1 of")
    ask(page, "And then?")
    expect(waiting(page)).to_have_text(["And then?"])
    page.keyboard.press("Control+k")
    page.keyboard.type("settings profile")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Profile")).to_be_visible()
    for _ in range(100):
        if site.model.questions[-1] == "And then?":
            break
        page.wait_for_timeout(50)
    page.go_back()
    answered(page, "Hello there.")
    expect(turns(page)).to_have_count(6)
    expect(waiting(page)).to_have_count(0)
