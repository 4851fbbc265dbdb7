"""What the app shows of what a model wrote, which may be anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, Request, expect

from tests.e2e.conftest import Site, slowly
from tests.e2e.test_journeys import answered, ask, last
from tests.server.scripted_app import says

HOSTILE = """\
<script>window.owned = 1</script>
<img src=x onerror="window.owned = 2">
<svg onload="window.owned = 3"></svg><iframe srcdoc="<script>parent.owned = 4</script>"></iframe>

[a](javascript:window.owned=5) <a href="javascript:window.owned=6">b</a> [c](/api/me)
![track](https://tracker.example/pixel.gif) <img src="https://tracker.example/two.gif">
<style>body { display: none }</style><form action="https://evil.example"><input></form>

```html"><script>window.owned = 7</script>
<script>window.owned = 8</script>
```

$\\href{javascript:window.owned=9}{x}$ and $\\text{<img src=x onerror=window.owned=10>}$

| <script>window.owned = 11</script> | <b onclick="window.owned=12">b</b> |
|---|---|
| x | y |

[ref]: javascript:window.owned=13
[ref] Done.
"""

DOCUMENT = """\
## Heading

Text with **bold** and $x^2$.

- one
- two

```python
print("hello")
```

| a | b |
|---|--:|
| 1 | 2 |

```mermaid
flowchart LR
  A[One] --> B[Two]
```

![A cat](https://pictures.example/cat.png)

Done.
"""


def test_hostile_markdown_does_nothing(site: Site, page: Page) -> None:
    """And asks nobody for anything: `complaints` watches every request."""
    site.model.answers["hostile"] = says(HOSTILE)
    ask(page, "Be hostile")
    answered(page, "Done.")
    expect(last(page).locator("math").first).to_be_visible()
    prose = last(page).locator(".prose")
    assert prose.locator("script, iframe, svg, style, form, input, img, [onerror], [onclick], [onload]").count() == 0
    links = prose.locator("a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert links == []
    expect(prose.get_by_role("button", name="Show image from tracker.example")).to_have_count(1)
    prose.get_by_text("<b onclick").first.click()
    assert page.evaluate("window.owned") is None


def test_what_was_streamed_is_what_a_reload_shows(site: Site, page: Page) -> None:
    site.model.answers["document"] = slowly(DOCUMENT)
    ask(page, "A document")
    answered(page, "Done.")
    expect(last(page).locator("math")).to_be_visible()
    expect(last(page).locator(".hljs-built_in")).to_have_text("print")
    expect(page.frame_locator("iframe").locator("svg")).to_contain_text("Two")
    expect(last(page).get_by_text("Drawing the diagram")).to_have_count(0)
    streamed = last(page).locator(".prose").inner_html()
    page.reload()
    expect(last(page).locator("math")).to_be_visible()
    expect(last(page).locator(".hljs-built_in")).to_have_text("print")
    expect(page.frame_locator("iframe").locator("svg")).to_contain_text("Two")
    expect(last(page).get_by_text("Drawing the diagram")).to_have_count(0)
    assert last(page).locator(".prose").inner_html() == streamed
    assert last(page).locator("td").last.evaluate("cell => getComputedStyle(cell).textAlign") == "right"


def test_who_scrolled_up_is_left_there(site: Site, page: Page) -> None:
    site.model.answers["scroll"] = slowly("\n\n".join(f"Paragraph {number}." for number in range(60)))
    ask(page, "Something to scroll")
    expect(last(page)).to_contain_text("Paragraph 30.")
    view = page.get_by_role("main", name="Conversation")
    gap = "view => view.scrollHeight - view.scrollTop - view.clientHeight"
    assert view.evaluate(gap) < 2
    view.hover()
    page.mouse.wheel(0, -300)
    page.wait_for_function("() => document.querySelector('main').scrollTop > 0")
    expect(page.get_by_role("button", name="Go to the latest")).to_be_visible()
    before = view.evaluate("view => view.scrollTop")
    expect(last(page)).to_contain_text("Paragraph 50.")
    assert view.evaluate("view => view.scrollTop") == before
    page.get_by_role("button", name="Go to the latest").click()
    answered(page, "Paragraph 59.")
    assert view.evaluate(gap) < 2


def test_code_is_copied_as_it_is(site: Site, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    site.model.answers["code"] = says('```python\nif a < b:\n    print("&amp;")\n```\n')
    ask(page, "Some code")
    last(page).locator(".code").get_by_role("button", name="Copy").click()
    expect(last(page).locator(".code").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == 'if a < b:\n    print("&amp;")'


def test_the_first_page_keeps_its_budget(site: Site, signed_in: dict[str, Any], new_page: Callable[..., Page]) -> None:
    """12 requests and 160 kB, compressed, until everything is there."""
    sizes: list[int] = []

    def count(request: Request) -> None:
        measured = request.sizes()
        sizes.append(measured["responseBodySize"] + measured["responseHeadersSize"])

    page = new_page(storage_state=signed_in)
    page.on("requestfinished", count)
    page.goto(site.url, wait_until="networkidle")
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    assert 3 <= len(sizes) <= 12
    assert sum(sizes) < 160_000
