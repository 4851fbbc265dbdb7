"""The whole way from the first start by keyboard alone, in a browser that never sees a pointer.

Wherever the focus stops, it can be seen and nothing lies over it (WCAG 2.2: 2.1.1, 2.4.7, 2.4.11).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.e2e.conftest import PASSWORD, Site
from tests.e2e.test_journeys import answered, turns
from tests.server.scripted_app import says

FOCUS = """() => {
  const element = document.activeElement;
  const { left, top, width, height } = element.getBoundingClientRect();
  const x = left + Math.min(width, innerWidth - left) / 2, y = top + Math.min(height, innerHeight - top) / 2;
  const above = document.elementFromPoint(x, y);
  const style = getComputedStyle(element);
  const name = element.getAttribute('aria-label') || element.labels?.[0]?.innerText || element.innerText || '';
  return {
    name: name.trim(),
    isClear: !!above && [element, element.closest('label')].some(one => one?.contains(above) || above.contains(one)),
    // The composer's own frame shows the focus of the field in it.
    isShown: (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2)
      || element.matches('#composer, .turn, input[type=radio]'),
    html: element.outerHTML.slice(0, 160),
  };
}"""


def tab_to(page: Page, name: str, *, key: str = "Tab", most: int = 60) -> None:
    """To what is called so, and looks at every stop on the way."""
    for _ in range(most):
        page.keyboard.press(key)
        page.wait_for_timeout(15)  # the skip link slides in, say
        focus = page.evaluate(FOCUS)
        assert focus["isShown"] or focus["html"].startswith("<body"), f"no focus is seen on {focus['html']}"
        assert focus["isClear"], f"something lies over {focus['html']}"
        if re.fullmatch(name, focus["name"].partition("\n")[0]):
            return
    raise AssertionError(f"{name!r} is not reached by {key}; the last stop was {focus['html']}")


def test_from_the_first_start_to_the_settings_by_keyboard(empty_site: Site, new_page: Callable[..., Page]) -> None:
    page = new_page(reduced_motion="reduce")
    empty_site.model.title = "Colours"
    page.goto(empty_site.setup_link)
    expect(page.get_by_role("heading", name="Welcome to Fireside")).to_be_visible()
    for label, text in (("Name", "Ada"), ("E-mail address", "ada@example.com"), ("Password", PASSWORD)):
        tab_to(page, label)
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What is on your mind, Ada?")).to_be_visible()

    # Ask, have it answered again, and turn the pages.
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    empty_site.model.answers["colour"] = says("Red.")
    page.keyboard.type("Which colour?")
    page.keyboard.press("Enter")
    answered(page, "Red.")
    empty_site.model.answers["colour"] = says("Blue.")
    tab_to(page, "Answer again", key="Shift+Tab")
    page.keyboard.press("Enter")
    answered(page, "Blue.")
    page.get_by_label("Message", exact=True).focus()
    tab_to(page, "Previous version", key="Shift+Tab")
    page.keyboard.press("Enter")
    answered(page, "Red.")

    # Edit the question.
    page.get_by_label("Message", exact=True).focus()
    tab_to(page, "Edit", key="Shift+Tab")  # that of the answer
    tab_to(page, "Edit", key="Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Edit")).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("Which shape?")
    empty_site.model.answers["shape"] = says("Round.")
    tab_to(page, "Send")
    page.keyboard.press("Enter")
    answered(page, "Round.")
    expect(turns(page)).to_have_count(2)

    # The sidebar, a menu, the settings and back.
    page.keyboard.press("Control+Shift+o")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.press("Control+k")
    page.keyboard.type("Round")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("Enter")
    answered(page, "Round.")
    page.get_by_role("link", name="Skip to the message field").focus()
    tab_to(page, "Options for .*")
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitem", name="Pin", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Pinned")).to_be_visible()
    tab_to(page, "Ada")
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Settings")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Profile")).to_be_visible()
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    tab_to(page, "Appearance")
    page.keyboard.press("Enter")
    tab_to(page, "As the device")
    page.keyboard.press("ArrowRight")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    tab_to(page, "Language")
    for key, language in (("D", "de"), ("ArrowUp", "fr"), ("ArrowUp", "en")):
        page.keyboard.press(key)
        expect(page.locator("html")).to_have_attribute("lang", language)
        expect(page.locator("#language")).to_be_focused()  # though everything was built anew
    page.keyboard.press("Control+Shift+o")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
