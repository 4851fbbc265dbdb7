"""Exports as the programs write them, in our own words. Where each shape was seen stands beside it."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any


def node(
    id: str,
    parent: str | None,
    children: list[str],
    role: str | None = None,
    *parts: Any,
    at: float | None = None,
    content: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Of ChatGPT's `mapping`, as exports of 2024 have them. role None: no message, as the root has none."""
    message = None
    if role is not None:
        message = {
            "id": id,
            "author": {"role": role, "name": None, "metadata": {}},
            "create_time": at,
            "update_time": None,
            "content": content or {"content_type": "text", "parts": list(parts)},
            "status": "finished_successfully",
            "end_turn": None,
            "weight": 1.0,
            "metadata": {},
            "recipient": "all",
            "channel": None,
        } | more
    return {"id": id, "message": message, "parent": parent, "children": children}


def chatgpt(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "title": "Candles",
        "create_time": 1756000000.123456,
        "update_time": 1756000400.654321,
        "mapping": {one["id"]: one for one in nodes},
        "moderation_results": [],
        "current_node": nodes[-1]["id"],
        "plugin_ids": None,
        "conversation_id": "6b0f0d9c-0000-4000-8000-000000000001",
        "conversation_template_id": None,
        "gizmo_id": None,
        "is_archived": False,
        "safe_urls": [],
        "default_model_slug": "gpt-4o",
        "id": "6b0f0d9c-0000-4000-8000-000000000001",
    } | more


def branched(**more: Any) -> dict[str, Any]:
    """A question that was edited, with an answer that was given twice."""
    return chatgpt(
        node("root", None, ["system"]),
        node("system", "root", ["q1", "q2"], "system", ""),
        node("q1", "system", ["a1"], "user", "How does a candle burn?", at=1756000001.5),
        node("a1", "q1", [], "assistant", "By its wick.", at=1756000002.25, metadata={"model_slug": "gpt-4o"}),
        node("q2", "system", ["a2", "a3"], "user", "How does a candle *really* burn?", at=1756000003),
        node("a2", "q2", [], "assistant", "The vapour burns.", at=1756000004),
        node("a3", "q2", ["q4"], "assistant", "Wax vapour meets air.", at=1756000005),
        node("q4", "a3", ["a4"], "user", "Thanks", at=1756000006),
        node("a4", "q4", [], "assistant", "Gladly.", at=1756000007.000001),
        **({"current_node": "a2"} | more),
    )


def openwebui(**more: Any) -> dict[str, Any]:
    """As "Export all chats" writes it, in a list: seen in LibreChat's tests of 2026."""
    messages = {
        "u1": {"id": "u1", "parentId": None, "childrenIds": ["r1", "r2"], "role": "user", "content": "What is 6 * 7?"},
        "r1": {
            "id": "r1",
            "parentId": "u1",
            "childrenIds": [],
            "role": "assistant",
            "content": '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>\n'
            "&gt; six times seven\n</details>\n42",
            "model": "deepseek-r1",
            "timestamp": 1700000010,
            "done": True,
        },
        "r2": {
            "id": "r2",
            "parentId": "u1",
            "childrenIds": [],
            "role": "assistant",
            "content": '<details type="tool_calls"><summary>Tool Executed</summary>"42"</details>Forty-two.',
            "model": "llama3.1:latest",
            "timestamp": 1700000020,
        },
    }
    messages["u1"] |= {"timestamp": 1700000000, "files": [{"type": "file", "name": "sums.pdf"}]}
    return {
        "id": "open-1",
        "user_id": "u",
        "title": "Sums",
        "chat": {
            "title": "Sums",
            "models": ["deepseek-r1"],
            "params": {"temperature": 0.3},
            "system": "Be exact.",
            "history": {"currentId": "r1", "messages": messages},
        },
        "created_at": 1700000000,
        "updated_at": 1700000030,
        "share_id": None,
        "archived": True,
        "pinned": False,
        "meta": {},
        "folder_id": None,
    } | more


def librechat(*, recursive: bool) -> dict[str, Any]:
    """Both of its formats, as "Export conversation" writes them with all branches."""

    def message(id: str, parent: str | None, text: str, second: int, **more: Any) -> dict[str, Any]:
        is_question = id.startswith("q")
        return {
            "messageId": id,
            "conversationId": "libre-1",
            "parentMessageId": parent or "00000000-0000-0000-0000-000000000000",
            "createdAt": f"2024-05-28T18:08:{second:02}.014Z",
            "endpoint": "openAI",
            "error": False,
            "isCreatedByUser": is_question,
            "model": None if is_question else "gpt-4-turbo",
            "sender": "User" if is_question else "GPT-4",
            "text": text,
            "tokenCount": 9,
            "unfinished": False,
            "updatedAt": "2024-05-28T18:09:27.193Z",
        } | more

    flat = [
        message("q1", None, "Tell me a story", 1),
        message("a1", "q1", "Once upon a time", 2, unfinished=True),
        message("a2", "q1", "", 3, content=[{"type": "think", "think": "A long one"}, {"type": "text", "text": "Far"}]),
        message("q2", "a2", "And then?", 4),
        message("a3", "q2", "The end.", 5, finish_reason="length"),
    ]
    if recursive:
        by_id = {one["messageId"]: one | {"children": []} for one in flat}
        for one in by_id.values():
            if one["parentMessageId"] in by_id:
                by_id[one["parentMessageId"]]["children"].append(one)
        flat = [one for one in by_id.values() if one["parentMessageId"] not in by_id]
    return {
        "conversationId": "libre-1",
        "endpoint": "openAI",
        "title": "A story",
        "exportAt": "13:18:04 GMT-0400 (Eastern Daylight Time)",
        "branches": True,
        "recursive": recursive,
        "options": {"model": "gpt-4-turbo", "promptPrefix": "You tell stories.", "temperature": 0.8, "top_p": 1},
        "messages": flat,
    }


def native(**more: Any) -> dict[str, Any]:
    """Our own, as `moving/native.py` describes it."""
    question = {"id": "1" * 32, "created_at": "2026-01-02T03:04:05.000006Z", "parent_id": None, "role": "user"}
    answer = {"id": "2" * 32, "created_at": "2026-01-02T03:04:06Z", "parent_id": "1" * 32, "role": "assistant"}
    rest = {"reasoning": None, "status": "complete", "error": None, "model": "tiny", "parameters": {"seed": 5}}
    conversation = {
        "id": "0" * 32,
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:07.5Z",
        "title": "Ours",
        "has_own_title": True,
        "model": "tiny",
        "parameters": {"temperature": 0.5, "system": "Be kind."},
        "current_leaf_id": "2" * 32,
        "pinned": True,
        "archived": False,
        "project": {"name": "Home", "instructions": "Be at home."},
        "messages": [
            question | rest | {"content": "Hi", "finish_reason": None, "usage": None},
            answer | rest | {"content": "Hello", "finish_reason": "length", "usage": {"prompt_tokens": 3}},
        ],
    } | more
    return {"format": "fireside.conversation", "version": 1, "conversation": conversation}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def zipped(files: dict[str, bytes | Any]) -> bytes:
    """As one finds them in a zip: those that are not bytes as JSON."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content if isinstance(content, bytes) else encoded(content))
    return data.getvalue()
