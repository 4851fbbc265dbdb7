"""What becomes of the exports of other programs: branches, times, titles, and what is left out and why."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fireside.server.moving.archive import read
from fireside.server.moving.parsed import Conversation, Reason, Skipped
from tests.server.moving.exports import branched, chatgpt, encoded, librechat, native, node, openwebui, zipped

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def taken(data: bytes, max_bytes: int = 1 << 20) -> tuple[list[Conversation], dict[Reason, int]]:
    """The conversations of an upload, and how much was left out for each reason."""
    found = list(read(io.BytesIO(data), "upload", max_bytes, lambda *_: None))
    counts: dict[Reason, int] = {}
    for item in found:
        if isinstance(item, Skipped):
            counts[item.reason] = counts.get(item.reason, 0) + item.count
    return [item for item in found if isinstance(item, Conversation)], counts


def one(value: Any) -> tuple[Conversation, dict[Reason, int]]:
    conversations, counts = taken(encoded(value))
    assert len(conversations) == 1, counts
    return conversations[0], counts


def shape(conversation: Conversation) -> list[tuple[str, str | None, str, str]]:
    return [(m.source_id, m.parent, m.role, m.content) for m in conversation.messages]


def test_chatgpt_branches_times_and_titles_are_exact() -> None:
    conversation, counts = one([branched()])
    assert (conversation.source, conversation.source_id) == ("chatgpt", "6b0f0d9c-0000-4000-8000-000000000001")
    assert conversation.title == "Candles" and conversation.current == "a2" and counts == {}
    assert shape(conversation) == [
        ("q1", None, "user", "How does a candle burn?"),
        ("a1", "q1", "assistant", "By its wick."),
        ("q2", None, "user", "How does a candle *really* burn?"),
        ("a2", "q2", "assistant", "The vapour burns."),
        ("a3", "q2", "assistant", "Wax vapour meets air."),
        ("q4", "a3", "user", "Thanks"),
        ("a4", "q4", "assistant", "Gladly."),
    ]
    assert conversation.created_at == EPOCH + timedelta(seconds=1756000000, microseconds=123456)
    assert conversation.updated_at == EPOCH + timedelta(seconds=1756000400, microseconds=654321)
    last = conversation.messages[-1]
    assert last.created_at == EPOCH + timedelta(seconds=1756000007, microseconds=1)
    assert [m.model for m in conversation.messages] == [None, "gpt-4o", None, "gpt-4o", "gpt-4o", None, "gpt-4o"]


def test_chatgpt_old_export_alone_and_new_export_in_pieces() -> None:
    """Since 2026: `conversations-000.json` and so on, most messages without metadata, or without it altogether."""
    second = branched(conversation_id="second", id="second", title="Second", default_model_slug="gpt-5")
    for one_node in second["mapping"].values():
        if one_node["message"]:
            for field in ("metadata", "weight", "recipient", "channel", "status"):
                del one_node["message"][field]
    third = chatgpt(node("r", None, []), conversation_id="third", title="Corrupted entry")
    del third["mapping"]
    pictures = {"file-abc-photo.png": b"\x89PNG", "chat.html": b"<html>", "user.json": {"id": "u"}}
    data = zipped({"conversations-000.json": [branched()], "conversations-001.json": [second, third], **pictures})
    conversations, counts = taken(data)
    assert [c.title for c in conversations] == ["Candles", "Second"]
    assert [c[1:] for c in shape(conversations[1])] == [c[1:] for c in shape(conversations[0])]
    assert conversations[1].messages[1].model == "gpt-5"
    assert counts == {Reason.UNKNOWN_FORMAT: 1, Reason.OTHER_FILE: 3}
    (old,), _ = taken(zipped({"export/conversations.json": [branched()]}))
    (alone,), _ = taken(encoded([branched()]))
    (single,), _ = taken(encoded(branched()))
    assert shape(old) == shape(alone) == shape(single) == shape(conversations[0])


def test_chatgpt_turns_with_tools_and_thoughts_are_one_message() -> None:
    conversation, counts = one(
        chatgpt(
            node("root", None, ["profile"]),
            node(
                "profile",
                "root",
                ["q"],
                "user",
                content={"content_type": "user_editable_context", "user_profile": "An SRE.", "user_instructions": ""},
                weight=0,
                metadata={"is_visually_hidden_from_conversation": True},
            ),
            node("q", "profile", ["think"], "user", "Add up", at=1),
            node(
                "think",
                "q",
                ["call"],
                "assistant",
                content={"content_type": "thoughts", "thoughts": [{"summary": "Sum", "content": "I will add."}]},
            ),
            node(
                "call",
                "think",
                ["output"],
                "assistant",
                content={"content_type": "code", "language": "python", "text": "print(1 + 1) # ```"},
                recipient="python",
            ),
            node("output", "call", ["a"], "tool", content={"content_type": "execution_output", "text": "2"}),
            node("a", "output", ["q2"], "assistant", "It is two.", at=3),
            node("q2", "a", ["search"], "user", "Look it up", at=4),
            node(
                "search",
                "q2",
                ["found"],
                "assistant",
                content={"content_type": "code", "language": "unknown", "text": 'search("two")'},
                recipient="browser",
            ),
            node("found", "search", ["a2"], "tool", content={"content_type": "tether_quote", "text": "a page"}),
            node(
                "a2",
                "found",
                [],
                "assistant",
                "Two \ue200cite\ue202turn0search0\ue201 it is.",
                metadata={
                    "content_references": [
                        {"matched_text": "\ue200cite\ue202turn0search0\ue201", "alt": "([page](https://example.com))"},
                        {"matched_text": " ", "alt": "never"},
                    ]
                },
            ),
            current_node="call",
        )
    )
    assert shape(conversation) == [
        ("q", None, "user", "Add up"),
        ("a", "q", "assistant", "````python\nprint(1 + 1) # ```\n````\n\n```\n2\n```\n\nIt is two."),
        ("q2", "a", "user", "Look it up"),
        ("a2", "q2", "assistant", "Two ([page](https://example.com)) it is."),
    ]
    assert conversation.messages[1].reasoning == "I will add."
    assert conversation.current == "a"  # which the node that was shown is a part of
    assert counts == {Reason.HIDDEN: 1, Reason.TOOL: 2}


def test_chatgpt_a_turn_that_branches_in_the_middle_is_whole_in_each_branch() -> None:
    conversation, _ = one(
        chatgpt(
            node("q", None, ["call"], "user", "Draw", at=1),
            node("call", "q", ["b1", "b2"], "assistant", "Let me see.", at=2),
            node("b1", "call", [], "assistant", "A circle.", at=3),
            node("b2", "call", [], "assistant", "A square.", at=4),
        )
    )
    assert [(m.parent, m.content) for m in conversation.messages[1:]] == [
        ("q", "Let me see.\n\nA circle."),
        ("q", "Let me see.\n\nA square."),
    ]


def test_chatgpt_parts_that_are_not_text() -> None:
    picture = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-abc", "width": 8}
    spoken = {"content_type": "audio_transcription", "text": "Spoken words", "direction": "in"}
    sound = {"content_type": "real_time_user_audio_video_asset_pointer", "audio_asset_pointer": {}}
    conversation, counts = one(
        chatgpt(
            node(
                "q", None, ["a"], "user", content={"content_type": "multimodal_text", "parts": [picture, "What is it?"]}
            ),
            node("a", "q", ["q2"], "assistant", "A candle."),
            node(
                "q2",
                "a",
                ["a2"],
                "user",
                content={"content_type": "multimodal_text", "parts": [sound, spoken, 5]},
                metadata={"attachments": [{"name": "plan.pdf", "mime_type": "application/pdf"}]},
            ),
            node("a2", "q2", [], "assistant", "I see.", metadata={"finish_details": {"type": "max_tokens"}}),
        )
    )
    assert [m.content for m in conversation.messages] == [
        "[image]\n\nWhat is it?",
        "A candle.",
        "[plan.pdf]\n\nSpoken words",
        "I see.",
    ]
    assert conversation.messages[-1].finish_reason == "length"
    assert counts == {Reason.ATTACHMENT: 3, Reason.MALFORMED: 1}


def test_chatgpt_links_to_nowhere_circles_and_what_is_no_message() -> None:
    conversation, counts = one(
        chatgpt(
            node("q", "gone", ["a", "nowhere"], "user", "Hi", at=1),
            node("a", "q", [], "assistant", "Hello", at=2),
            node("x", "y", ["y"], "user", "round", at=3),
            node("y", "x", ["x"], "assistant", "and round", at=4),
            node("odd", "a", [], "narrator", "Meanwhile"),
            node("empty", "a", [], "user", "", at=5),
            {"id": "n", "message": {"author": None, "content": None}, "parent": "a", "children": None},
            {"id": "list", "message": [], "parent": 7, "children": "abc"},
            current_node="nowhere",
        )
    )
    assert shape(conversation) == [
        ("q", None, "user", "Hi"),
        ("a", "q", "assistant", "Hello"),
        ("x", None, "user", "round"),
        ("y", "x", "assistant", "and round"),
    ]
    assert counts == {Reason.NO_PARENT: 1, Reason.CIRCLE: 1, Reason.EMPTY: 1, Reason.MALFORMED: 3}
    assert conversation.current is None


def test_openwebui() -> None:
    conversation, counts = one([openwebui()])
    assert shape(conversation) == [
        ("u1", None, "user", "[sums.pdf]\n\nWhat is 6 * 7?"),
        ("r1", "u1", "assistant", "42"),
        ("r2", "u1", "assistant", "Forty-two."),
    ]
    assert conversation.messages[1].reasoning == "six times seven"
    assert conversation.messages[1].model == "deepseek-r1"
    assert (conversation.title, conversation.current, conversation.is_archived) == ("Sums", "r1", True)
    assert conversation.created_at == EPOCH + timedelta(seconds=1700000000)
    assert conversation.updated_at == EPOCH + timedelta(seconds=1700000030)
    assert conversation.parameters["system"] == "Be exact."
    assert counts == {Reason.ATTACHMENT: 1, Reason.TOOL: 1}


def test_openwebui_calls_of_tools_however_long() -> None:
    chat = openwebui()
    result = "&quot;" * 5000
    chat["chat"]["history"]["messages"]["r2"]["content"] = (
        f'<details type="tool_calls" done="true" result="{result}">\n<summary>Tool Executed</summary>\n</details>\nSo.'
    )
    conversation, counts = one([chat])
    assert conversation.messages[2].content == "So." and counts[Reason.TOOL] == 1


@pytest.mark.parametrize("program", ["chatgpt", "openwebui", "fireside"])
def test_the_branch_that_was_shown_is_shown_where_its_end_is_left_out(program: str) -> None:
    """Not the one that was last written."""
    if program == "chatgpt":
        value = branched(current_node="hidden")
        value["mapping"]["hidden"] = node("hidden", "a2", [], "system", "")
        expected = "a2"
    elif program == "openwebui":
        value = openwebui()
        messages = value["chat"]["history"]["messages"]
        messages["hidden"] = {"id": "hidden", "parentId": "r1", "childrenIds": [], "role": "user", "content": ""}
        value["chat"]["history"]["currentId"] = "hidden"
        expected = "r1"
    else:
        value = native(current_leaf_id="3" * 32)
        messages = value["conversation"]["messages"]
        messages += [messages[1] | {"id": "3" * 32, "role": "system", "parent_id": "1" * 32}]
        expected = "1" * 32
    conversation, _ = one([value])
    assert conversation.current == expected


def test_openwebui_of_old_without_a_history() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    conversation, _ = one([{"id": "old", "title": "Old", "chat": {"timestamp": 1700000000123, "messages": messages}}])
    assert shape(conversation) == [("0", None, "user", "Hi"), ("1", "0", "assistant", "Hello")]
    assert conversation.created_at == EPOCH + timedelta(milliseconds=1700000000123)


@pytest.mark.parametrize("recursive", [True, False])
def test_librechat_in_both_of_its_formats(recursive: bool) -> None:
    conversation, counts = one(librechat(recursive=recursive))
    assert shape(conversation) == [
        ("q1", None, "user", "Tell me a story"),
        ("a1", "q1", "assistant", "Once upon a time"),
        ("a2", "q1", "assistant", "Far"),
        ("q2", "a2", "user", "And then?"),
        ("a3", "q2", "assistant", "The end."),
    ]
    assert [m.status for m in conversation.messages] == ["complete", "stopped", *["complete"] * 3]
    assert conversation.messages[2].reasoning == "A long one"
    assert conversation.messages[4].finish_reason == "length"
    assert conversation.messages[0].created_at == datetime(2024, 5, 28, 18, 8, 1, 14_000, UTC)
    assert conversation.parameters["system"] == "You tell stories."
    assert counts == {}


def test_librechat_nested_a_thousand_deep() -> None:
    # Python's own writer does not go that deep: it is nested by hand.
    asked = ("true", "false")
    parts = [f'{{"messageId":"m{n}","isCreatedByUser":{asked[n % 2]},"text":"t{n}","children":[' for n in range(3000)]
    data = '{"conversationId":"deep","title":"Deep","recursive":true,"messages":[' + "".join(parts) + "]}" * 3000 + "]}"
    (conversation,), counts = taken(data.encode())
    assert len(conversation.messages) == 3000 and counts == {}
    assert conversation.messages[-1].parent == "m2998"
