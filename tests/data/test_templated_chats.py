"""The chats that come along are what their module makes."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from fireside.data.templated_chats import templated_chats

FILE = Path(__file__).parents[2] / "recipes" / "data" / "chats.jsonl"


def test_the_file_is_what_the_module_prints() -> None:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"messages": chat} for chat in templated_chats(len(lines))]


def test_every_chat_is_another_and_takes_turns() -> None:
    chats = list(templated_chats(500, seed=3))
    assert len({json.dumps(chat) for chat in chats}) == 500
    for chat in chats:
        assert [message["role"] for message in chat] == ["user", "assistant"] * (len(chat) // 2)
        assert all(message["content"] for message in chat)
    assert list(islice(templated_chats(10, seed=4), 3)) != chats[:3]
