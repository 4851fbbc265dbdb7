"""One branch of a conversation as a page that needs nothing but itself: no script, no other file, no cookie."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import TypedDict

from fireside.server.documents.markdown import to_html
from fireside.server.documents.words import Words


class Turn(TypedDict):
    role: str
    content: str
    reasoning: str | None
    model: str | None


_FLAME = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 2c1 4 6 6 6 12a6 6 0 0 1-12 0c0-3 2-4 3-6 1 2 2 2 2 3 '
    '2-3 0-6 1-9z"/></svg>'
)


@cache
def style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


@cache
def policy() -> str:
    """The Content-Security-Policy that such a page gets by with: its own style, and pictures within itself."""
    digest = b64encode(sha256(style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def conversation_page(
    words: Words,
    title: str,
    turns: Sequence[Turn],
    *,
    about: str = "",
    instructions: str = "",
    go_on: str | None = None,
) -> str:
    """about: a line below the title. go_on: the address behind "Continue this conversation"."""
    title = " ".join(title.split()) or words.untitled
    parts = [f'<h1 dir="auto">{escape(title)}</h1>']
    if about:
        parts.append(f'<p class="when">{escape(about)}</p>')
    if go_on:
        parts.append(f'<a class="button" href="{escape(go_on)}" rel="nofollow">{escape(words.go_on)}</a>')
    body = [_aside(words.instructions, instructions)] if instructions else []
    body += [_turn(words, turn) for turn in turns]
    return _whole(words, title, "\n".join(parts), "\n".join(body))


def gone_page(words: Words) -> str:
    head = f'<h1>{escape(words.gone)}</h1>\n<p class="when">{escape(words.gone_text)}</p>'
    return _whole(words, words.gone, head, "")


def _turn(words: Words, turn: Turn) -> str:
    is_question = turn["role"] == "user"
    name = words.question if is_question else words.answer
    model = "" if is_question or not turn["model"] else f" · <bdi>{escape(turn['model'])}</bdi>"
    thought = _aside(words.reasoning, turn["reasoning"]) if turn["reasoning"] else ""
    # Questions stand as they were written, as in the app.
    body = f'<p dir="auto">{escape(turn["content"])}</p>' if is_question else to_html(turn["content"])
    kind = "question" if is_question else "answer"
    return (
        f'<article class="{kind}"><h2 class="who">{escape(name)}{model}</h2>{thought}'
        f'<div class="prose" dir="auto">{body}</div></article>'
    )


def _aside(name: str, text: str) -> str:
    return f'<details><summary>{escape(name)}</summary><div class="prose" dir="auto">{to_html(text)}</div></details>'


def _whole(words: Words, title: str, head: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="{words.lang}" dir="{words.direction}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="robots" content="noindex, nofollow">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)} · Fireside</title>\n<style>{style()}</style>\n</head>\n<body>\n"
        f'<header><p class="flame">{_FLAME}Fireside</p>\n{head}\n</header>\n<main>\n{body}\n</main>\n</body>\n</html>\n'
    )


def day(time: datetime) -> str:
    """In digits, from left to right in text of either direction."""
    return f"\u2066{time.date().isoformat()}\u2069"
