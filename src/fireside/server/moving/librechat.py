"""LibreChat's exports, one conversation a file: its messages as a list, or each inside the one before (`recursive`)."""

from __future__ import annotations

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
from fireside.server.moving.trees import Node, ordered

SOURCE = "librechat"

_NO_PARENT = "00000000-0000-0000-0000-000000000000"


def fits(item: dict[str, Any]) -> bool:
    return isinstance(item.get("conversationId"), str) and isinstance(
        item.get("messages", item.get("messagesTree")), list
    )


def parse(item: dict[str, Any]) -> Conversation:
    """Raises `TooManyMessages`."""
    notes = Notes()
    nodes: dict[str, Node] = {}
    last: str | None = None
    # From the back, since a stack gives last what was put on it first.
    waiting: list[tuple[object, str | None]] = [
        (value, None) for value in reversed(sequence(item.get("messages", item.get("messagesTree"))))
    ]
    while waiting:
        value, above = waiting.pop()
        message = mapping(value)
        key = string(message.get("messageId")) or f"{above or ''}/{len(nodes)}"
        if key in nodes:
            notes.add(Reason.MALFORMED)
            continue
        parent = above or string(message.get("parentMessageId"))
        nodes[key] = Node(parent if parent and parent != _NO_PARENT else None, _message(key, value, notes))
        last = key
        waiting += [(child, key) for child in reversed(sequence(message.get("children")))]
    messages = ordered(nodes, notes)
    times = [message.created_at for message in messages if message.created_at]
    options = mapping(item.get("options"))
    return Conversation(
        source=SOURCE,
        source_id=source_id(item["conversationId"]) or source_id(last) or "empty",
        title=notes.text(item.get("title")),
        created_at=min(times, default=None),
        updated_at=max(times, default=None),
        messages=messages,
        parameters={
            "system": options.get("promptPrefix"),
            "temperature": options.get("temperature"),
            "top_p": options.get("top_p"),
        },
        is_archived=item.get("isArchived") is True,
        notes=notes,
    )


def _message(key: str, value: object, notes: Notes) -> Message | None:
    message, name = mapping(value), source_id(key)
    if name is None or not isinstance(message.get("isCreatedByUser"), bool):
        notes.add(Reason.MALFORMED)
        return None
    is_question = message["isCreatedByUser"]
    said, thought = _content(message.get("content"), notes)
    content = notes.text(message.get("text")) or said
    files = len(sequence(message.get("files"))) + len(sequence(message.get("attachments")))
    if files:
        notes.add(Reason.ATTACHMENT, files)
    made = Message(
        source_id=name,
        parent=None,
        role="user" if is_question else "assistant",
        content=content,
        reasoning=thought or None,
        created_at=notes.time(message.get("createdAt")),
        model=None if is_question else notes.text(message.get("model"), 512) or None,
    )
    if not is_question:
        if message.get("error") is True:
            made.status = "failed"
            made.error = {"message": content[:2000] or "It failed where it was written.", "code": None}
            made.content = ""
        elif message.get("unfinished") is True:
            made.status = "stopped"
        elif message.get("finish_reason") in ("length", "incomplete"):
            made.finish_reason = "length"
    if not made.content.strip() and not made.reasoning and made.error is None:
        notes.add(Reason.EMPTY)
        return None
    return made


def _content(value: object, notes: Notes) -> tuple[str, str]:
    """Newer messages are in parts: what was said, and what was thought."""
    said: list[str] = []
    thought: list[str] = []
    for one in sequence(value):
        part = mapping(one)
        kind = part.get("type")
        if kind == "text":
            text = part.get("text")
            said.append(string(text) or string(mapping(text).get("value")))
        elif kind == "think":
            text = part.get("think")
            thought.append(string(text) or string(mapping(text).get("value")))
        elif kind in ("image_url", "image_file"):
            notes.add(Reason.ATTACHMENT)
            said.append("[image]")
        else:
            notes.add(Reason.TOOL)
    return (
        notes.text("\n\n".join(part for part in said if part)),
        notes.text("\n\n".join(part for part in thought if part)),
    )
