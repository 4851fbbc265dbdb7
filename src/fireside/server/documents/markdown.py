"""Markdown as HTML on the server, for pages without script. It shows what the app's own rendering shows.

What models write is hostile: their HTML becomes text, addresses other than web and mail lead nowhere, pictures of other
hosts are links, and what comes out is sanitised once more by a library that knows nothing of Markdown. Formulas stay
what was written, in LaTeX.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

_HARMLESS_TAG = re.compile(r"<(?:br\s*/?|/?(?:sub|sup|kbd|mark|u|s|ins|small))>", re.IGNORECASE)
_WEB_ADDRESS = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_INLINE_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif);base64,", re.IGNORECASE)
_LANGUAGE = re.compile(r"[\w+#.-]+")
# As the app has it (web/src/lib/markdown/syntax.ts): no space inside dollars, no digit after them.
_INLINE_MATH = re.compile(r"\$\$[^\n$]+?\$\$|\$(?!\s)(?:\\.|[^\\$\n])+?(?<!\s)\$(?!\d)|\\\([^\n]+?\\\)")
_BLOCK_MATH = {"$$": "$$", "\\[": "\\]"}
_MAX_MATH = 2_000  # characters of a formula within a line: looking for its end from every dollar must come to one

_TAGS = {
    "a", "blockquote", "br", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "ins",
    "kbd", "li", "mark", "ol", "p", "pre", "s", "small", "span", "strong", "sub", "sup", "table", "tbody", "td", "th",
    "thead", "tr", "u", "ul",
}  # fmt: skip
_ATTRIBUTES = {
    "a": {"href", "rel", "class"},
    "code": {"dir"},
    "div": {"class", "tabindex", "dir"},
    "img": {"src", "alt"},
    "ol": {"start"},
    "pre": {"tabindex", "dir", "class"},
    "td": {"align"},
    "th": {"align"},
}


def to_html(text: str) -> str:
    """Safe HTML, without an element that fetches anything."""
    import nh3

    rendered = _parser().render(text)
    return nh3.clean(
        rendered,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel=None,  # said by us already
        attribute_filter=_filter,
    )


def _filter(tag: str, name: str, value: str) -> str | None:
    if name == "href":
        return value if _WEB_ADDRESS.match(value) else None
    if name == "src":
        return value if _INLINE_IMAGE.match(value) else None
    return value


@cache
def _parser() -> MarkdownIt:
    # Imported late: most servers never show a shared page.
    from markdown_it import MarkdownIt

    # HTML is recognised, as in the app, so that it can be shown as the text that it is.
    parser = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(["table", "strikethrough"])
    parser.inline.ruler.before("escape", "math", _inline_math)
    parser.block.ruler.before("fence", "math", _block_math, {"alt": ["paragraph", "blockquote", "list"]})
    parser.validateLink = _is_safe  # type: ignore[method-assign]  # documented to be replaced so
    for name, rule in {
        "html_block": _html,
        "html_inline": _html,
        "code_block": _code,
        "fence": _code,
        "image": _image,
        "link_open": _link,
        "math_inline": _math,
        "math_block": _math,
        "table_open": lambda *_: '<div class="table" tabindex="0"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
        "th_open": _cell,
        "td_open": _cell,
    }.items():
        parser.add_render_rule(name, lambda _self, *told, rule=rule: rule(*told))
    return parser


def _is_safe(url: str) -> bool:
    return bool(_WEB_ADDRESS.match(url) or _INLINE_IMAGE.match(url))


def _html(tokens: Sequence[Token], place: int, *_: Any) -> str:
    text = tokens[place].content
    return text if _HARMLESS_TAG.fullmatch(text.strip()) else escape(text)


def _code(tokens: Sequence[Token], place: int, *_: Any) -> str:
    token = tokens[place]
    language = _LANGUAGE.match(token.info.strip())
    head = f'<div class="code-head">{escape(language[0])}</div>' if language else ""
    body = escape(token.content.rstrip("\n"))
    return f'<div class="code" dir="ltr">{head}<pre tabindex="0"><code>{body}</code></pre></div>\n'


def _image(tokens: Sequence[Token], place: int, *_: Any) -> str:
    token = tokens[place]
    address, alt = str(token.attrs.get("src", "")), escape(token.content)
    if _INLINE_IMAGE.match(address):
        return f'<img src="{escape(address)}" alt="{alt}">'
    label = alt or escape(_host(address))
    return f'<a class="image" href="{escape(address)}" rel="noopener noreferrer nofollow">{label}</a>'


def _host(address: str) -> str:
    try:
        return urlsplit(address).netloc or address[:60]
    except ValueError:
        return address[:60]


def _link(tokens: Sequence[Token], place: int, *_: Any) -> str:
    address = str(tokens[place].attrs.get("href", ""))
    return f'<a href="{escape(address)}" rel="noopener noreferrer nofollow">'


def _cell(tokens: Sequence[Token], place: int, *_: Any) -> str:
    """Alignment by an attribute: the page's policy takes no style from an element."""
    token = tokens[place]
    style = str(token.attrs.get("style", ""))
    align = style.removeprefix("text-align:")
    return f'<{token.tag} align="{align}">' if align in ("left", "right", "center") else f"<{token.tag}>"


def _math(tokens: Sequence[Token], place: int, *_: Any) -> str:
    token = tokens[place]
    if token.type == "math_block":
        return f'<pre class="math" tabindex="0" dir="ltr">{escape(token.content)}</pre>\n'
    return f'<code dir="ltr">{escape(token.content)}</code>'


def _inline_math(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    match = _INLINE_MATH.match(state.src, state.pos, min(state.posMax, state.pos + _MAX_MATH))
    if match is None:
        return False
    if not silent:
        state.push("math_inline", "", 0).content = match[0]
    state.pos = match.end()
    return True


def _block_math(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """From a line that begins with the mark to the one that ends with it, if no empty line comes before."""
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    close = _BLOCK_MATH.get(first[:2])
    if close is None or state.is_code_block(start):
        return False
    line = start
    text = first[2:]
    while not text.rstrip().endswith(close):
        line += 1
        if line >= end or state.isEmpty(line) or state.sCount[line] < state.blkIndent:
            return False
        text = state.src[state.bMarks[line] : state.eMarks[line]]
    if silent:
        return True
    token = state.push("math_block", "", 0)
    token.block = True
    token.content = state.getLines(start, line + 1, state.blkIndent, False).strip()
    token.map = [start, line + 1]
    state.line = line + 1
    return True
