"""ChatGPT's exports: `conversations.json`, since 2026 several `conversations-000.json`.

Nothing official describes them; what is read here was seen in exports of 2023 to 2026. A conversation has a `mapping`
of nodes with a parent, children and a message or null. Messages have an author's role, a recipient (a tool, or all) and
content of some `content_type`; newer exports leave `metadata` out, or the model in it.

One turn of an answer is several nodes: thoughts, calls of tools, what those gave, text. As on ChatGPT's own page they
become one message; where the turn branches in between, each branch has the whole turn, within reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fireside.server.moving.parsed import (
    MAX_MESSAGE,
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

SOURCE = "chatgpt"

_SPARE = 10_000  # characters that any conversation may come to, however often its turns branch
_NOT_SHOWN = frozenset({"user_editable_context", "model_editable_context", "reasoning_recap", "app_pairing_content"})
_SHOWN_TOOLS = ("python", "canmore")  # what is sent to these was shown as code
# What stands in the text for a source.
_MARK = re.compile("\ue200[^\ue200\ue201]{1,1000}\ue201|【[^【】]{1,1000}】")
_MAX_REFERENCES = 500


def fits(item: dict[str, Any]) -> bool:
    return isinstance(item.get("mapping"), dict)


def parse(item: dict[str, Any]) -> Conversation:
    """Raises `TooManyMessages`."""
    notes = Notes()
    default_model = notes.text(item.get("default_model_slug"), 512) or None
    nodes: dict[str, Node] = {}
    for key, value in item["mapping"].items():
        node = mapping(value)
        if value is not None and not isinstance(value, dict):
            notes.add(Reason.MALFORMED)
        message = _message(key, node.get("message"), default_model, notes)
        children = [child for child in sequence(node.get("children")) if isinstance(child, str)]
        parent = node.get("parent")
        nodes[key] = Node(parent if isinstance(parent, str) else None, message, children)
    current = item.get("current_node")
    messages, ends = _turns(ordered(nodes, notes), nearest(nodes, current))
    name = source_id(item.get("conversation_id")) or source_id(item.get("id"))
    return Conversation(
        source=SOURCE,
        source_id=name or source_id("\n".join(nodes)) or "empty",
        title=notes.text(item.get("title")),
        created_at=notes.time(item.get("create_time")),
        updated_at=notes.time(item.get("update_time")),
        messages=messages,
        current=ends,
        is_archived=item.get("is_archived") is True,
        is_pinned=item.get("is_starred") is True or bool(item.get("pinned_time")),
        notes=notes,
    )


def _message(key: str, value: object, default_model: str | None, notes: Notes) -> Message | None:
    if value is None:
        return None  # the root
    message, name = mapping(value), source_id(key)
    author, metadata = mapping(message.get("author")), mapping(message.get("metadata"))
    role = author.get("role")
    if name is None or role not in ("user", "assistant", "tool", "system"):
        notes.add(Reason.MALFORMED)
        return None
    content = mapping(message.get("content"))
    kind = string(content.get("content_type"))
    if role == "system" or kind in _NOT_SHOWN or metadata.get("is_visually_hidden_from_conversation") is True:
        if kind != "reasoning_recap" and _has_text(content):
            notes.add(Reason.HIDDEN)
        return None
    made = Message(
        source_id=name,
        parent=None,
        role="user" if role == "user" else "assistant",
        content="",
        created_at=notes.time(message.get("create_time")),
        model=None if role == "user" else notes.text(metadata.get("model_slug"), 512) or default_model,
    )
    if kind == "thoughts":
        made.reasoning = notes.text(_thoughts(content)) or None
    else:
        made.content = _text(content, role, string(message.get("recipient")) or "all", metadata, notes)
    ended = mapping(metadata.get("finish_details")).get("type")
    if ended == "max_tokens":
        made.finish_reason = "length"
    elif ended == "interrupted" or (role == "assistant" and message.get("status") == "in_progress"):
        made.status = "stopped"
    if not made.content.strip() and not made.reasoning:
        if role == "user":
            notes.add(Reason.EMPTY)
        return None
    return made


def _has_text(content: dict[str, Any]) -> bool:
    return any(isinstance(part, str) and part.strip() for part in sequence(content.get("parts"))) or any(
        isinstance(value, str) and value.strip() for key, value in content.items() if key != "content_type"
    )


def _text(content: dict[str, Any], role: str, recipient: str, metadata: dict[str, Any], notes: Notes) -> str:
    kind = content.get("content_type")
    if kind == "code":
        if recipient != "all" and not recipient.startswith(_SHOWN_TOOLS):
            notes.add(Reason.TOOL)
            return ""
        language = string(content.get("language"))
        return notes.text(_fenced(string(content.get("text")), "" if language in ("unknown", "") else language))
    if kind == "execution_output":
        return notes.text(_fenced(string(content.get("text")), ""))
    if kind not in ("text", "multimodal_text"):
        notes.add(Reason.TOOL)
        return ""
    pictures = [part for part in sequence(content.get("parts")) if not isinstance(part, str)]
    if (role == "tool" and not pictures) or (role == "assistant" and recipient != "all"):
        notes.add(Reason.TOOL)
        return ""
    parts = (part if isinstance(part, str) else _part(part, notes) for part in sequence(content.get("parts")))
    text = notes.text("\n\n".join(part for part in parts if part.strip()))
    if role == "user":
        for attachment in sequence(metadata.get("attachments"))[:100]:
            name = string(mapping(attachment).get("name"))
            if name and not string(mapping(attachment).get("mime_type")).startswith("image/"):
                notes.add(Reason.ATTACHMENT)
                text = f"[{notes.text(name, 200)}]\n\n{text}"
        return text
    return _with_sources(text, metadata, notes)


def _part(value: object, notes: Notes) -> str:
    """Of a message that is not text alone. Spoken words were written down; files are not in the conversation."""
    part = mapping(value)
    if part.get("content_type") == "audio_transcription":
        return string(part.get("text"))
    if part.get("content_type") == "image_asset_pointer":
        notes.add(Reason.ATTACHMENT)
        return "[image]"
    if part.get("content_type") is not None:  # sound and video, whose words stand beside them
        notes.add(Reason.ATTACHMENT)
    else:
        notes.add(Reason.MALFORMED)
    return ""


def _thoughts(content: dict[str, Any]) -> str:
    thoughts = (mapping(thought) for thought in sequence(content.get("thoughts")))
    return "\n\n".join(text for t in thoughts if (text := string(t.get("content")) or string(t.get("summary"))))


def _fenced(text: str, language: str) -> str:
    """As a block of code, whatever backticks are in it."""
    if not text.strip():
        return ""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    fence = "`" * max(3, longest + 1)
    language = "".join(c for c in language[:32] if c.isalnum() or c in "+#-_")
    return f"{fence}{language}\n{text}\n{fence}"


def _with_sources(text: str, metadata: dict[str, Any], notes: Notes) -> str:
    """Marks that stand for a source become what was shown in their place.

    In one pass, in which no mark is looked for in what a mark became; and what is shown more than once comes to no more
    than what the file holds of text and sources. Beyond that marks stay as they are.
    """
    shown = {
        string(reference.get("matched_text")): notes.text(string(reference.get("alt"))[:4000])
        for reference in map(mapping, sequence(metadata.get("content_references"))[:_MAX_REFERENCES])
    }
    room = len(text) + sum(map(len, shown.values()))

    def replace(match: re.Match[str]) -> str:
        nonlocal room
        source = shown.get(match[0])
        if source is None or len(source) > room:
            return match[0]
        room -= len(source)
        return source

    return _MARK.sub(replace, text)[:MAX_MESSAGE] if shown else text


def _above(nodes: dict[str, Node], key: str | None) -> str | None:
    """The nearest node with a message, from `key` on upwards."""
    seen: set[str] = set()
    while key is not None and key in nodes and key not in seen:
        seen.add(key)
        message = nodes[key].message
        if message is not None:
            return message.source_id
        key = nodes[key].parent
    return None


def _turns(pieces: Sequence[Message], current: str | None) -> tuple[list[Message], str | None]:
    """The messages of whole turns, and which of them is or holds `current`.

    A piece of an answer ends a turn where a question follows it, or no other piece. Where all branches with all of
    their turns would come to much more than was read, what branches share stays a message of its own.
    """
    by_name = {piece.source_id: piece for piece in pieces}
    followed = Counter(piece.parent for piece in pieces if piece.role == "assistant")
    stops = {piece.source_id for piece in pieces if piece.role == "user"}
    asked_on = {piece.parent for piece in pieces if piece.role == "user"}
    ends = {name for name in by_name if name in stops or name in asked_on or not followed[name]}
    sizes: dict[str, int] = {}  # of what ends with a piece, if it is a whole turn
    for piece in pieces:
        is_first = piece.role == "user" or piece.parent is None or piece.parent in stops
        sizes[piece.source_id] = _size(piece) + (0 if is_first else sizes[piece.parent or ""])
    if sum(sizes[name] for name in ends) > 2 * sum(map(_size, pieces)) + _SPARE:
        stops = ends = ends | {name for name in by_name if followed[name] > 1}
    messages = []
    for end in pieces:
        if end.source_id not in ends:
            continue
        turn = [end]
        while end.role == "assistant" and (above := turn[-1].parent) is not None and above not in stops:
            turn.append(by_name[above])
        messages.append(_joined(turn[::-1]))
    last = {piece.parent: piece.source_id for piece in pieces if piece.role == "assistant"}
    while current is not None and current not in ends:  # in the middle of a turn: what was shown is the end of it
        current = last.get(current)
    return messages, current


def _size(piece: Message) -> int:
    """Characters, and some for what comes with any message."""
    return len(piece.content) + len(piece.reasoning or "") + 100


def _joined(turn: list[Message]) -> Message:
    first, end = turn[0], turn[-1]
    if first is end:
        return end
    return Message(
        source_id=end.source_id,
        parent=first.parent,
        role=end.role,
        content="\n\n".join(piece.content for piece in turn if piece.content.strip())[:MAX_MESSAGE],
        reasoning="\n\n".join(piece.reasoning for piece in turn if piece.reasoning)[:MAX_MESSAGE] or None,
        created_at=end.created_at or first.created_at,
        model=end.model or first.model,
        status=end.status,
        finish_reason=end.finish_reason,
        pieces=tuple(piece.source_id for piece in turn[:-1]),
    )
