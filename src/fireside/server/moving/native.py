"""Our own format, for one conversation with all of its branches.

    {"format": "fireside.conversation", "version": 1, "exported_at": TIME,
     "conversation": {"id", "created_at", "updated_at", "title", "has_own_title", "model", "parameters",
                      "current_leaf_id", "pinned", "archived", "project": {"name", "instructions"} or null,
                      "messages": [{"id", "created_at", "parent_id", "role", "content", "reasoning", "status", "error",
                                    "model", "parameters", "finish_reason", "usage", "earlier_writers"}, ...]}}

Times are RFC 3339 in UTC, messages stand behind their parents. Readers take what they know and leave the rest;
`version` goes up when a reader of the one before would misunderstand.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from fireside.server.chat import tables
from fireside.server.db.base import now
from fireside.server.moving.parsed import Conversation, Message, Notes, Reason, mapping, sequence, source_id, string
from fireside.server.moving.trees import Node, nearest, ordered

SOURCE = "fireside"
FORMAT = "fireside.conversation"
VERSION = 1

_STATUSES = frozenset(tables.Status)
_MAX_WRITERS = 100  # of one message
_MAX_DEPTH = 8  # of a message's parameters, usage and error
_FIELDS = ("id", "created_at", "parent_id", "role", "content", "reasoning", "status", "error", "model", "parameters")


def dump(
    conversation: tables.Conversation, messages: list[tables.Message], project: tables.Project | None
) -> dict[str, Any]:
    """As a value of JSON."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "exported_at": now(),
        "conversation": {
            "id": conversation.id,
            "created_at": conversation.created_at,
            "updated_at": conversation.updated_at,
            "title": conversation.title,
            "has_own_title": conversation.has_own_title,
            "model": conversation.model,
            "parameters": conversation.parameters,
            "current_leaf_id": conversation.current_leaf_id,
            "pinned": conversation.pinned_at is not None,
            "archived": conversation.archived_at is not None,
            "project": project and {"name": project.name, "instructions": project.instructions},
            "messages": [
                {name: getattr(message, name) for name in (*_FIELDS, "finish_reason", "earlier_writers")}
                | {"model": message.told_model, "usage": message.told_usage, "parameters": message.told_parameters}
                for message in messages
            ],
        },
    }


def encode(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1)


def fits(item: dict[str, Any]) -> bool:
    return item.get("format") == FORMAT and isinstance(item.get("conversation"), dict)


def is_newer(item: dict[str, Any]) -> bool:
    version = item.get("version")
    return not isinstance(version, int) or version > VERSION


def parse(item: dict[str, Any]) -> Conversation:
    """Raises `TooManyMessages`."""
    notes = Notes()
    given = item["conversation"]
    nodes: dict[str, Node] = {}
    for value in sequence(given.get("messages")):
        key = string(mapping(value).get("id"))
        if not key or key in nodes:
            notes.add(Reason.MALFORMED)
            continue
        parent = value.get("parent_id")
        nodes[key] = Node(parent if isinstance(parent, str) else None, _message(key, value, notes))
    project = mapping(given.get("project"))
    name = notes.text(project.get("name"), 200).strip()
    return Conversation(
        source=SOURCE,
        source_id=source_id(given.get("id")) or source_id("\n".join(nodes)) or "empty",
        title=notes.text(given.get("title")),
        has_own_title=given.get("has_own_title") is True,
        created_at=notes.time(given.get("created_at")),
        updated_at=notes.time(given.get("updated_at")),
        messages=ordered(nodes, notes, by_time=False),
        current=nearest(nodes, given.get("current_leaf_id")),
        model=notes.text(given.get("model"), 512) or None,
        parameters=mapping(given.get("parameters")),
        is_pinned=given.get("pinned") is True,
        is_archived=given.get("archived") is True,
        project=(name, notes.text(project.get("instructions"), 32_000)) if name else None,
        notes=notes,
    )


def _message(key: str, message: dict[str, Any], notes: Notes) -> Message | None:
    name, role, status = source_id(key), message.get("role"), string(message.get("status"))
    if name is None or role not in ("user", "assistant"):
        notes.add(Reason.MALFORMED)
        return None
    if status not in _STATUSES:
        status = "complete"
    error = _object(message.get("error"))
    content = notes.text(message.get("content"))
    return Message(
        source_id=name,
        parent=None,
        role=role,
        content=content,
        reasoning=notes.text(message["reasoning"]) if isinstance(message.get("reasoning"), str) else None,
        created_at=notes.time(message.get("created_at")),
        status="interrupted" if status == "running" else status,  # nobody writes on there
        model=notes.text(message.get("model"), 512) or None,
        finish_reason=notes.text(message.get("finish_reason"), 16) or None,
        error=error if error and isinstance(error.get("message"), str) else None,
        parameters=_object(message.get("parameters")),
        usage=_object(message.get("usage")),
        earlier_writers=_writers(message.get("earlier_writers"), len(content)),
    )


def _writers(value: object, length: int) -> list[dict[str, Any]] | None:
    """Those whose text ends behind that of the one before, within the message."""
    writers: list[dict[str, Any]] = []
    for given in map(mapping, sequence(value)[:_MAX_WRITERS]):
        end = given.get("end")
        if isinstance(end, int) and (writers[-1]["end"] if writers else 0) < end <= length:
            lengths = {"model": 512, "model_version": 64, "finish_reason": 16}
            texts = {name: Notes().text(given.get(name), longest) or None for name, longest in lengths.items()}
            writers.append({**texts, "parameters": _object(given.get("parameters")), "end": end})
    return writers or None


def _object(value: object) -> dict[str, Any] | None:
    """A small object as it can be kept, or None."""
    if not isinstance(value, dict):
        return None
    kept = _plain(value, _MAX_DEPTH)
    return kept if isinstance(kept, dict) and len(msgspec.json.encode(kept)) < 64_000 else None


def _plain(value: object, depth: int) -> Any:
    if depth == 0:
        return None
    match value:
        case dict():
            return {Notes().text(key, 200): _plain(one, depth - 1) for key, one in list(value.items())[:200]}
        case list():
            return [_plain(one, depth - 1) for one in value[:1000]]
        case str():
            return Notes().text(value, 64_000)
        case Decimal():
            return float(value) if abs(value) < 10**300 else None
        case int() if abs(value) >= 2**63:
            return None
    return value
