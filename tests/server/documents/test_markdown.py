"""Markdown on the server: what is hostile does nothing, and what is not looks as it does in the app."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.server.documents.markdown import to_html
from fireside.server.documents.words import WORDS, words_for
from tests.e2e.test_reading import DOCUMENT, HOSTILE

MORE_HOSTILE = """\
[a](data:text/html,<script>owned</script>) [b](JaVaScRiPt:owned) [c](//evil.example) [d](vbscript:x) [e](/api/me)
<a href="java&#115;cript:owned">x</a> <style>@import url(//evil.example)</style> <img src=x onerror=owned>
![x](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9Im93bmVkIi8+) ![y](https://evil.example/"onerror="owned)
<https://evil.example/"onmouseover="owned> <math><mtext></table><mglyph>
<style><!--</style><img title="--><img src=1 onerror=owned>">
<details open ontoggle=owned> <base href="https://evil.example"> <meta http-equiv=refresh content=0>

| a"onload="owned | b |
|:--|--:|
| <iframe srcdoc="x"></iframe> | `<b>` |
"""


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def seen(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Seen()
    parser.feed(html)
    return parser.tags


def check_harmless(html: str) -> None:
    for tag, attributes in seen(html):
        assert tag not in (
            "script",
            "style",
            "iframe",
            "svg",
            "form",
            "input",
            "base",
            "meta",
            "link",
            "object",
            "details",
        )
        assert not any(name.startswith("on") or name in ("style", "id", "srcdoc", "srcset") for name in attributes), (
            html
        )
        assert (attributes.get("href") or "https://").startswith(("https://", "http://", "mailto:")), html
        assert (attributes.get("src") or "data:image/png;base64,").startswith(("data:image/png;base64,",)), html


@pytest.mark.parametrize("text", [HOSTILE, MORE_HOSTILE])
def test_hostile_markdown_does_nothing(text: str) -> None:
    html = to_html(text)
    check_harmless(html)
    assert "&lt;script&gt;" in html or "&lt;iframe" in html  # it is shown as the text that it is


@given(st.lists(st.sampled_from("<>\"'=`[]()!*_|\\$&;:/ \nascriptonloadimg"), max_size=60).map("".join))
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_no_text_becomes_an_element_that_was_not_meant(text: str) -> None:
    check_harmless(to_html(text))


def test_what_a_document_holds() -> None:
    html = to_html(DOCUMENT + "\n- [ ] open\n\n1. a\n\n~~gone~~ H<sub>2</sub>O<br>x <kbd>Q</kbd> https://example.com\n")
    assert "<h2>Heading</h2>" in html and "<strong>bold</strong>" in html
    assert '<div class="code-head">python</div>' in html and "print(&quot;hello&quot;)" in html.replace(
        '"hello"', "&quot;hello&quot;"
    )
    assert '<td align="right">2</td>' in html and "style=" not in html
    assert "<msup><mrow><mi>x</mi></mrow><mrow><mn>2</mn></mrow></msup>" in html
    assert "<s>gone</s>" in html or "<del>gone</del>" in html
    assert "H<sub>2</sub>O<br>" in html and "<kbd>Q</kbd>" in html


def test_pictures_of_other_hosts_are_links_and_those_within_are_shown() -> None:
    pixel = "data:image/png;base64,iVBORw0KGgo="
    html = to_html(f"![A cat](https://example.com/cat.png) ![dot]({pixel})")
    assert '<a class="image" href="https://example.com/cat.png" rel="noopener noreferrer nofollow">A cat</a>' in html
    assert [tag for tag in seen(html) if tag[0] == "img"] == [("img", {"src": pixel, "alt": "dot"})]


def test_a_formula_ends_with_its_list_and_its_quote() -> None:
    html = to_html("1. a\n   $$\n   x\n   $$\n2. b\n\n> $$x$$ c\n\nd $$\n\n$$\ny").replace("\n", "")
    assert re.sub(r"<(div|pre) class.*?</\1>", "F", html) == (
        "<ol><li>aF</li><li>b</li></ol><blockquote>F<p>c</p></blockquote><p>d $$</p>F"
    )


@pytest.mark.parametrize("text", ["It costs $5 and *not* $6.", "a $ b *c* $ d", "$$\n\n*c*", "\\\\(*c*\\\\)"])
def test_what_is_no_formula(text: str) -> None:
    assert "<em>" in to_html(text)


@pytest.mark.parametrize(
    "text",
    [
        "$" * 20_000,
        "$a " * 15_000,
        "\\(" * 20_000,
        "[" * 30_000,
        "![[" * 8_000,
        "*a " * 15_000,
        "> " * 20_000,
        "$$x$$\n" * 5_000,
        "$$x$$ " * 5_000,
        "\\[\n" * 20_000,
        "$$\n" * 20_000,
        "$x$ " * 5_000,
    ],
)
def test_texts_that_make_readers_slow(text: str) -> None:
    began = time.process_time()
    to_html(text)
    assert time.process_time() - began < 3


def test_languages() -> None:
    assert words_for("de-CH,de;q=0.9,en;q=0.8") is WORDS["de"]
    assert words_for("xx, ar;q=0.5, fr;q=0.9") is WORDS["fr"]
    assert words_for("zh-Hant-TW") is WORDS["zh"]
    for nothing in ("", "xx", "de;q=0", "de;q=abc", ";;,,=", "*" * 5000):
        assert words_for(nothing) is WORDS["en"]
    for words in WORDS.values():
        assert "{date}" in words.shared and "{date}" in words.until
