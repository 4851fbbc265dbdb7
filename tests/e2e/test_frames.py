"""What is shown in frames that have no origin: diagrams, previews of HTML and SVG, images of other sites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Frame, Page, Route, expect

from tests.e2e.conftest import Site, slowly
from tests.e2e.test_journeys import answered, ask, last
from tests.server.scripted_app import says

DIAGRAM = """\
```mermaid
flowchart LR
  A[Start] --> B["<img src=x onerror='parent.owned=1'>End"]
  click A "javascript:parent.owned=2"
```

Between.

```mermaid
flowchart LR
  A[Never closed -->
```

Done.
"""

PAGES = """\
```html
<h1>Hello</h1><script>document.body.innerHTML = 'owned'; parent.parent.owned = 1</script>
<meta http-equiv="refresh" content="0;url=https://evil.example/refresh">
<img src="https://evil.example/image.png"><iframe src="https://evil.example/frame"></iframe>
<link rel="stylesheet" href="https://evil.example/style.css"><a href="https://evil.example/link">link</a>
<form action="https://evil.example/form"><button>send</button></form>
```

```svg
<svg viewBox="0 0 200 100" width="200" height="100" onload="parent.owned = 1"><rect width="200" height="100"/>
<image href="https://evil.example/svg.png"/></svg>
```

Done.
"""

IMAGE = Path(__file__).parents[2] / "docs" / "images" / "app-phone.png"


@pytest.fixture
def asked(browser: Browser, site: Site, signed_in: dict[str, Any]) -> Iterator[tuple[Page, list[str]]]:
    """A page, and what it really asked other sites for. What it was kept from it reports, and that is right here."""
    site.model.answers.clear()
    requests: list[str] = []

    def answer(route: Route) -> None:
        requests.append(route.request.url)
        assert "referer" not in route.request.headers and "cookie" not in route.request.headers
        if route.request.url.endswith("/cat.png"):
            route.fulfill(path=IMAGE, content_type="image/png")
        else:
            route.abort()

    context = browser.new_context(locale="en-GB", viewport={"width": 1100, "height": 1200}, storage_state=signed_in)
    context.route(lambda url: not url.startswith((site.url, "data:")), answer)
    page = context.new_page()
    page.goto(site.url)
    yield page, requests
    context.close()


def frames(page: Page, name: str) -> list[Frame]:
    return [frame for frame in page.frames if frame.url.endswith(f"/assets/{name}")]


def test_a_diagram_is_drawn_where_it_can_do_no_harm(site: Site, asked: tuple[Page, list[str]]) -> None:
    page, requests = asked
    site.model.answers["diagram"] = slowly(DIAGRAM)
    ask(page, "A diagram")
    # By the frame: what is being written is there for half a second, and assertions look less and less often.
    page.wait_for_function("() => document.querySelector('article pre')?.textContent.includes('A[Start]')")
    assert page.locator("iframe").count() == 0  # what is being written is shown as it is written
    answered(page, "Done.")
    drawing = page.frame_locator("iframe").first.locator("svg")
    expect(drawing).to_contain_text("Start")
    expect(last(page).get_by_text("This diagram cannot be drawn, so here is its source. Parse error")).to_be_visible()
    expect(page.locator("iframe")).to_have_count(1)
    assert last(page).locator(".prose svg").count() == 0
    frame = frames(page, "frame.html")[0]
    assert frame.evaluate("origin") == "null"
    for forbidden in ("localStorage.length", "parent.document.body", "document.cookie"):
        assert frame.evaluate(f"() => {{ try {{ {forbidden}; return 'reached' }} catch {{ return 'refused' }} }}") == (
            "refused"
        )
    assert page.evaluate("window.owned") is None and requests == []
    box = page.locator("iframe").bounding_box()
    assert box and 60 < box["height"] < 400  # as high as what it shows

    last(page).get_by_role("button", name="Source").click()
    expect(page.locator("iframe")).to_have_count(0)
    expect(last(page).locator("pre").first).to_be_visible()
    shown = last(page).get_by_role("button", name="Diagram").first
    expect(shown).to_be_focused()
    page.keyboard.press("Enter")
    expect(drawing).to_contain_text("Start")
    expect(last(page).get_by_role("button", name="Source")).to_be_focused()
    fill = "rect => getComputedStyle(rect).fill"
    light = drawing.locator("rect.label-container").first.evaluate(fill)
    page.keyboard.press("Control+k")
    page.keyboard.type("theme dark")
    page.keyboard.press("Enter")
    expect(drawing.locator("rect.label-container").first).not_to_have_css("fill", light)


def test_html_and_svg_are_previewed_without_script_and_network(site: Site, asked: tuple[Page, list[str]]) -> None:
    page, requests = asked
    site.model.answers["page"] = says(PAGES)
    ask(page, "A page")
    answered(page, "Done.")
    assert page.locator("iframe").count() == 0
    page.get_by_role("button", name="Preview").first.click()
    inner = page.frame_locator("iframe").first.frame_locator("iframe")
    expect(inner.get_by_role("heading", name="Hello")).to_be_visible()
    page.get_by_role("button", name="Preview").first.click()
    expect(page.frame_locator("iframe").nth(1).locator("img")).to_have_js_property("naturalWidth", 200)
    expect(page.locator("iframe").nth(1)).to_have_js_property("offsetHeight", 100)
    inner.get_by_role("button", name="send").click()
    inner.get_by_text("link").click()
    page.wait_for_timeout(200)
    assert requests == [] and page.evaluate("window.owned") is None
    assert page.url.startswith(site.url)


def test_an_image_of_another_site_is_asked_for_when_somebody_asks(site: Site, asked: tuple[Page, list[str]]) -> None:
    page, requests = asked
    site.model.answers["image"] = says(
        "![A cat](https://pictures.example/cat.png) ![](https://tracker.example/pixel.gif) Done."
    )
    ask(page, "An image")
    answered(page, "Done.")
    page.wait_for_timeout(100)
    assert requests == []
    page.get_by_role("button", name="Show image from pictures.example A cat").click()
    image = page.frame_locator("iframe").get_by_role("img", name="A cat")
    expect(image).to_have_js_property("complete", True)
    expect(page.locator("iframe")).to_have_attribute("height", "720")  # at most
    assert requests == ["https://pictures.example/cat.png"]
    assert frames(page, "image.html")[0].evaluate("origin") == "null"
    page.get_by_role("button", name="Show image from tracker.example").click()
    expect(page.get_by_text("No image came from tracker.example.")).to_be_visible()
    # Whatever a mistake in our Markdown lets through, the page itself cannot fetch from elsewhere.
    before = len(requests)
    page.evaluate("document.body.append(Object.assign(new Image(), { src: 'https://evil.example/x.png' }))")
    page.evaluate("fetch('https://evil.example/y').catch(() => {})")
    page.wait_for_timeout(100)
    assert len(requests) == before


def test_the_frame_listens_to_the_page_around_it_only(site: Site, page: Page) -> None:
    """And shows nothing at an address of its own: whoever opens it has an empty page without an origin."""
    page.goto(f"{site.url}/assets/frame.html")
    assert page.evaluate("origin") == "null"
    page.evaluate("dispatchEvent(new MessageEvent('message', { data: { kind: 'page', source: '<h1>x' } }))")
    page.wait_for_timeout(50)
    assert page.locator("body *").count() == 0
