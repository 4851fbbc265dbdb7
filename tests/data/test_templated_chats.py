"""The chats that come along are what their module makes."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from fireside.data.templated_chats import templated_chats

FOLDER = Path(__file__).parents[2] / "recipes" / "data"


@pytest.mark.parametrize(("name", "held_out"), [("chats", False), ("chats-held-out", True)])
def test_the_files_are_what_the_module_prints(name: str, held_out: bool) -> None:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    expected = templated_chats(len(lines), held_out=held_out)
    assert [json.loads(line) for line in lines] == [{"messages": chat} for chat in expected]


def test_no_answer_that_is_held_out_is_in_training() -> None:
    """In no words: what is asked for in one way there is not asked for in another here."""
    learned = {message["content"] for chat in templated_chats(4000) for message in chat}
    asked = [chat[1]["content"] for chat in templated_chats(250, held_out=True)]
    assert learned.isdisjoint(asked)
    assert all(sum(mark in answer for answer in asked) > 5 for mark in (" + ", " - ", "larger", ", "))
    assert {f"{a} + {b} = {a + b}." for a in range(10) for b in range(10)} <= learned


def test_every_chat_is_another_and_takes_turns() -> None:
    chats = list(templated_chats(500, seed=3))
    assert len({json.dumps(chat) for chat in chats}) == 500
    for chat in chats:
        assert [message["role"] for message in chat] == ["user", "assistant"] * (len(chat) // 2)
        assert all(message["content"] for message in chat)
    assert list(islice(templated_chats(10, seed=4), 3)) != chats[:3]
