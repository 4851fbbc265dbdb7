"""A conversation as a file: Markdown or a page for print of one branch, JSON of the whole tree."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.chat.tables import Conversation, Message, Project
from fireside.server.documents.page import Turn, conversation_page, day
from fireside.server.documents.words import Words
from fireside.server.errors import ApiError
from fireside.server.moving import native
from fireside.server.sharing.snapshots import MAX_CHARACTERS

_MAX_NAME = 80  # characters of a file's name
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows


async def to_json(session: AsyncSession, conversation: Conversation) -> bytes:
    """See `native.py`."""
    rows = await session.scalars(
        select(Message).where(Message.conversation_id == conversation.id).order_by(Message.number)
    )
    project = None
    if conversation.project_id is not None:
        project = await session.get(Project, conversation.project_id)
    return native.encode(native.dump(conversation, list(rows), project))


def to_markdown(words: Words, conversation: Conversation, path: Sequence[Message], *, reasoning: bool) -> str:
    title = " ".join(conversation.title.split()) or words.untitled
    parts = [f"# {title}", conversation.created_at.date().isoformat()]
    for message in path:
        if not message.content and not (reasoning and message.reasoning):
            continue
        name = words.question if message.role == "user" else words.answer
        models = message.told_models if message.role != "user" else ""
        parts.append(f"## {name}" + (f" ({models})" if models else ""))
        if reasoning and message.reasoning:
            parts.append("\n".join(f"> {line}".rstrip() for line in message.reasoning.splitlines()))
        parts.append(message.content)
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def to_page(words: Words, conversation: Conversation, path: Sequence[Message], *, reasoning: bool) -> str:
    """Takes a while for long ones: not for the event loop. Raises `ApiError` 409 for those that would take too long."""
    turns = [
        Turn(
            role=message.role,
            content=message.content,
            reasoning=message.reasoning if reasoning else None,
            model=message.told_models,
        )
        for message in path
        if message.content
    ]
    size = sum(len(turn["content"]) + len(turn["reasoning"] or "") for turn in turns)
    if size > MAX_CHARACTERS:
        raise ApiError(
            409,
            f"this branch has {size:,} characters, and a page at most {MAX_CHARACTERS:,}; export Markdown instead",
            code="too_long_for_a_page",
        )
    return conversation_page(words, conversation.title, turns, about=day(conversation.created_at))


def file_name(title: str, extension: str) -> str:
    """As every system takes it, however hostile the title: no separators, no control or direction characters."""
    name = "".join(c for c in unicodedata.normalize("NFC", title) if unicodedata.category(c)[0] != "C" or c == "\u200d")
    name = " ".join(_FORBIDDEN.sub(" ", name).split()).strip(". ")[:_MAX_NAME].strip(". ")
    while len(name.encode()) > 200:
        name = name[:-1]
    if not name or _RESERVED.match(name):
        name = f"conversation {name}".strip()
    return f"{name}.{extension}"


def disposition(name: str) -> str:
    """Of a download. RFC 6266; the name in full as RFC 8187 writes it, and in ASCII for who cannot read that."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r'["\\%;]', "_", plain).strip()
    if plain.startswith("."):
        plain = f"conversation{plain}"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
