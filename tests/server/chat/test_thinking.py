"""What is thought and what is said, however the text is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.server.chat.runs.live import text_of
from fireside.server.chat.runs.thinking import Thinking

CASES = {
    "Hello.": ("", "Hello."),
    "<think>\nHm.\n</think>\n\nHello.": ("Hm.", "Hello."),
    "\n<think>Hm, <b> </thin k> so.</think>Hello <think>.": ("Hm, <b> </thin k> so.", "Hello <think>."),
    "<think>\n\n</think>\n\nHello.": ("", "Hello."),
    "<think>\nIt was cut": ("It was cut", ""),
    "<think>It was cut </thi": ("It was cut </thi", ""),
    "<thin": ("", "<thin"),
    " <thinly> veiled": ("", " <thinly> veiled"),
    "": ("", ""),
}


@pytest.mark.parametrize(("text", "expected"), CASES.items(), ids=map(repr, CASES))
@given(cuts=st.lists(st.integers(0, 50)))
def test_any_cut_gives_the_same(text: str, expected: tuple[str, str], cuts: list[int]) -> None:
    thinking = Thinking()
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    events = [event for piece in pieces for event in thinking.push(piece)] + thinking.finish()
    assert (text_of(events, "reasoning"), text_of(events, "text")) == expected


def test_nothing_is_held_without_need() -> None:
    thinking = Thinking()
    assert thinking.push("Hi") == [{"type": "text", "text": "Hi"}]
    thinking = Thinking()
    assert thinking.push("<think>Hm") == [{"type": "reasoning", "reasoning": "Hm"}]
