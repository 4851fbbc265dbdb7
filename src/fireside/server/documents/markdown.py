"""Markdown as HTML on the server, for pages without script. It shows what the app's own rendering shows.

What models write is hostile: their HTML becomes text, addresses other than web and mail lead nowhere, pictures of other
hosts are links, and what comes out is sanitised once more by a library that knows nothing of Markdown. Formulas are
what the app takes for formulas (tests/server/documents/formulas.json is both's table); `maths.py` makes MathML of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fireside.server.documents import maths

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

_HARMLESS_TAG = re.compile(r"<(?:br\s*/?|/?(?:sub|sup|kbd|mark|u|s|ins|small))>", re.IGNORECASE)
_WEB_ADDRESS = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_INLINE_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif);base64,", re.IGNORECASE)
_LANGUAGE = re.compile(r"[\w+#.-]+")
# As the app has it (web/src/lib/markdown/syntax.ts): no space inside dollars, no digit after them; a block goes on to
# its end or an empty line, whatever is in it.
_INLINE_MATH = re.compile(r"\$\$([^\n$]+?)\$\$|\$(?!\s)((?:\\.|[^\\$\n])+?)(?<!\s)\$(?![0-9])|\\\(([^\n]+?)\\\)")
_END_OF_MATH = re.compile(r"\$\$|\\\]")
_MAX_INLINE = 2_000  # characters of a formula within a line: looking for its end from every dollar must come to one
_MOST_DRAWN = 2_000_000  # characters of MathML in one text, which is fourteen times as long as LaTeX, and a tree next
_LONG = 24  # signs of a formula in a line that may be wider than a phone
_MARKUP = re.compile(r"<annotation.*|<[^>]*>", re.DOTALL)

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
    "span": {"class", "tabindex"},
    "td": {"align"},
    "th": {"align"},
} | dict.fromkeys(maths.ELEMENTS, maths.ATTRIBUTES)


def to_html(text: str) -> str:
    """Safe HTML, without an element that fetches anything."""
    import nh3

    rendered = _parser().render(text)
    return nh3.clean(
        rendered,
        tags=_TAGS | maths.ELEMENTS,
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


def _math(tokens: Sequence[Token], place: int, _: Any, env: dict[str, int]) -> str:
    """`content` is what was written, `info` the formula in it; none in a block whose end is missing."""
    token = tokens[place]
    is_block = token.type == "math_block"
    is_drawn = token.info and env.setdefault("drawn", 0) < _MOST_DRAWN
    made = maths.to_mathml(token.info, display=is_block) if is_drawn else None
    if made is None:
        source = escape(token.content)
        whole = '<pre class="math" tabindex="0" dir="ltr">{}</pre>\n' if is_block else '<code dir="ltr">{}</code>'
        return whole.format(source)
    env["drawn"] += len(made)
    if is_block:
        return f'<div class="math" tabindex="0" dir="ltr">{made}</div>\n'
    return f'<span class="math" tabindex="0">{made}</span>' if len(_MARKUP.sub("", made)) > _LONG else made


def _inline_math(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    match = _INLINE_MATH.match(state.src, state.pos, min(state.posMax, state.pos + _MAX_INLINE))
    if match is None:
        return False
    if not silent:
        token = state.push("math_inline", "", 0)
        token.content, token.info = match[0], match[match.lastindex or 0]
    state.pos = match.end()
    return True


def _block_math(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """One after the other, and what stands behind the last one in its line as whatever that is."""
    if not _begins_math(state, start):
        return False
    if silent:
        return True
    has_rest = True
    while has_rest and _begins_math(state, start):
        start, has_rest = _take_math(state, start, end)
    state.line = start
    if has_rest:
        for rule in state.md.block.ruler.getRules(""):
            if rule(state, start, end, False):
                break
    return True


def _begins_math(state: StateBlock, line: int) -> bool:
    begin = state.bMarks[line] + state.tShift[line]
    return state.sCount[line] <= state.blkIndent and state.src.startswith(("$$", "\\["), begin, state.eMarks[line])


def _take_math(state: StateBlock, start: int, end: int) -> tuple[int, bool]:
    """Returns the line that comes next, and whether it is the one that the formula ends in, from there on."""
    line = start
    begin = state.bMarks[start] + state.tShift[start]
    after = begin + 2
    while (found := _END_OF_MATH.search(state.src, after, state.eMarks[line])) is None:
        if line + 1 >= end or state.isEmpty(line + 1) or state.sCount[line + 1] < state.blkIndent:
            break
        line += 1
        after = state.bMarks[line] + state.tShift[line]
    written = state.src[begin : state.eMarks[start]]
    if line > start:
        written += "\n" + state.getLines(start + 1, line + 1, state.blkIndent, False)
    token = state.push("math_block", "", 0)
    token.block = True
    token.map = [start, line + 1]
    if found is None:
        token.content = written
        return line + 1, False
    token.content = written[: len(written) - (state.eMarks[line] - found.end())]
    token.info = token.content[2:-2].strip()
    rest = state.skipSpaces(found.end())
    if rest >= state.eMarks[line]:
        return line + 1, False
    state.bMarks[line], state.tShift[line], state.sCount[line] = rest, 0, state.blkIndent
    return line, True
