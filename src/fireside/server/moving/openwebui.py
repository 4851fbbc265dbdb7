"""Open WebUI's exports: a list of chats, each with a `history` of messages by id; in old ones a flat list alone."""

from __future__ import annotations

import html
import re
from typing import Any

from fireside.server.moving.parsed import (
    Conversation,
    Message,
    Notes,
    Reason,
    mapping,
    sequence,
    source_id,
    string,
)
from fireside.server.moving.trees import Node, nearest, ordered

SOURCE = "openwebui"

_DETAILS = re.compile(r'<details type="([a-z_]{1,32})"')
_SUMMARY = re.compile(r"<summary>[^<]{0,2000}</summary>")
_END = "</details>"


def fits(item: dict[str, Any]) -> bool:
    chat = mapping(item.get("chat"))
    return isinstance(mapping(chat.get("history")).get("messages"), dict) or isinstance(chat.get("messages"), list)


def parse(item: dict[str, Any]) -> Conversation:
    """Raises `TooManyMessages`."""
    notes = Notes()
    chat = mapping(item.get("chat"))
    history = mapping(chat.get("history"))
    nodes: dict[str, Node] = {}
    if isinstance(history.get("messages"), dict):
        for key, value in history["messages"].items():
            message = mapping(value)
            children = [child for child in sequence(message.get("childrenIds")) if isinstance(child, str)]
            parent = message.get("parentId")
            nodes[key] = Node(parent if isinstance(parent, str) else None, _message(key, value, notes), children)
        current = history.get("currentId")
    else:
        before = None
        for place, value in enumerate(sequence(chat.get("messages"))):
            key = string(mapping(value).get("id")) or str(place)
            nodes.setdefault(key, Node(before, _message(key, value, notes)))
            before = key
        current = before
    settings, system = mapping(chat.get("params")), chat.get("system")
    return Conversation(
        source=SOURCE,
        source_id=source_id(item.get("id")) or source_id(chat.get("id")) or source_id("\n".join(nodes)) or "empty",
        title=notes.text(item.get("title") or chat.get("title")),
        created_at=notes.time(item.get("created_at") or chat.get("timestamp")),
        updated_at=notes.time(item.get("updated_at")),
        messages=ordered(nodes, notes),
        current=nearest(nodes, current),
        parameters={
            "system": system or settings.get("system"),
            "temperature": settings.get("temperature"),
            "top_p": settings.get("top_p"),
        },
        is_archived=item.get("archived") is True,
        is_pinned=item.get("pinned") is True,
        notes=notes,
    )


def _message(key: str, value: object, notes: Notes) -> Message | None:
    message, name = mapping(value), source_id(key)
    role = message.get("role")
    if name is None or role not in ("user", "assistant"):
        notes.add(Reason.HIDDEN if role == "system" else Reason.MALFORMED)
        return None
    content, reasoning, dropped = _without_details(notes.text(message.get("content")))
    notes.add(Reason.TOOL, dropped) if dropped else None
    files = sequence(message.get("files"))
    if files:
        notes.add(Reason.ATTACHMENT, len(files))
        names = (string(mapping(file).get("name")) or "image" for file in files[:20])
        content = "\n\n".join([" ".join(f"[{notes.text(name, 200)}]" for name in names), content]).strip()
    made = Message(
        source_id=name,
        parent=None,
        role=role,
        content=content,
        reasoning=reasoning or None,
        created_at=notes.time(message.get("timestamp")),
        model=None if role == "user" else notes.text(message.get("model"), 512) or None,
    )
    if role == "assistant" and message.get("error"):
        said = mapping(message["error"]).get("content")
        made.status = "failed"
        made.error = {"message": notes.text(said, 2000) or "It failed where it was written.", "code": None}
    elif role == "assistant" and message.get("done") is False:
        made.status = "stopped"
    if not made.content.strip() and not made.reasoning and made.error is None:
        notes.add(Reason.EMPTY)
        return None
    return made


def _without_details(text: str) -> tuple[str, str, int]:
    """What was said; what was thought; how many calls of tools were in between. All of it stands in one text there."""
    kept: list[str] = []
    thoughts: list[str] = []
    dropped = at = 0
    while match := _DETAILS.search(text, at):
        begin = text.find(">", match.end()) + 1  # however long: what a tool gave stands in an attribute
        if not begin or (end := text.find(_END, begin)) < 0:
            break
        kept.append(text[at : match.start()])
        inner = _SUMMARY.sub("", text[begin:end], count=1).strip()
        if match[1] == "reasoning":
            lines = html.unescape(inner).splitlines()
            thoughts.append("\n".join(line.removeprefix("> ").removeprefix(">") for line in lines))
        else:
            dropped += 1
        at = end + len(_END)
    kept.append(text[at:])
    return "".join(kept).strip(), "\n\n".join(thoughts), dropped
