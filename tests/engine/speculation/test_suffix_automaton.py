"""The automaton against a search that tries everything."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.engine.speculation.suffix_automaton import Cursor, SuffixAutomaton


def longest_known_tail(known: list[int], tokens: list[int], *, proper: bool) -> int:
    """Length of the longest tail of `tokens` that lies in `known`; `proper`: not as its end."""
    end = len(known) - proper
    for length in range(min(len(tokens), end), 0, -1):
        tail = tokens[-length:]
        if any(known[start : start + length] == tail for start in range(end - length + 1)):
            return length
    return 0


texts = st.integers(1, 4).flatmap(lambda few: st.lists(st.integers(0, few), max_size=40))


@given(texts)
def test_finds_the_longest_tail_that_occurred_before(text: list[int]) -> None:
    automaton = SuffixAutomaton()
    for index, token in enumerate(text, start=1):
        automaton.append(token)
        length, end = automaton.match_length, automaton.match_end
        assert length == longest_known_tail(text[:index], text[:index], proper=True)
        assert end < index
        assert text[end - length : end] == text[index - length : index]
    assert len(automaton) == len(text)


@given(texts, texts, st.randoms())
def test_a_cursor_finds_the_tail_of_another_text_while_the_automaton_grows(
    known: list[int], tokens: list[int], order: random.Random
) -> None:
    """What it finds is always there. It is the longest there is, unless the text has grown since the match began."""
    automaton = SuffixAutomaton()
    cursor = Cursor(automaton)
    waiting = list(known)
    for index in range(1, len(tokens) + 1):
        while waiting and order.random() < 0.5:
            automaton.append(waiting.pop(0))
        cursor.append(tokens[index - 1])
        length, end = cursor.match_length, cursor.match_end
        assert automaton.text.tolist()[end - length : end] == tokens[index - length : index]
    automaton.extend(waiting)
    fresh = Cursor(automaton)
    for index, token in enumerate(tokens, start=1):
        fresh.append(token)
        assert fresh.match_length == longest_known_tail(known, tokens[:index], proper=False)


def test_a_cursor_knows_how_much_it_matches_when_its_state_is_split() -> None:
    automaton = SuffixAutomaton()
    automaton.extend([9, 1, 2])
    cursor = Cursor(automaton)
    cursor.append(2)  # in the state of "9 1 2", "1 2" and "2"
    automaton.extend([1, 2, 5])  # from which "1 2" and "2" are split off
    cursor.append(5)
    assert (cursor.match_length, cursor.match_end) == (2, 6)  # "2 5", and not "1 2 5"


def test_the_place_is_where_the_tail_was_the_longest_last() -> None:
    automaton = SuffixAutomaton()
    automaton.extend([1, 2, 30, 1, 2, 40, 1, 2])
    assert (automaton.match_length, automaton.match_end) == (2, 5)
    assert automaton.continuation(2) == [40, 1]


def test_a_text_goes_on_with_its_period_and_stops_at_a_separator() -> None:
    automaton = SuffixAutomaton()
    automaton.extend([7, 1, 2, 3, 1, 2, 3])
    assert automaton.continuation(7) == [1, 2, 3, 1, 2, 3, 1]
    automaton.extend([-1, 1])
    assert automaton.continuation(7, start=5) == [2, 3]
    assert automaton.continuation(7, start=len(automaton)) == []


@pytest.mark.parametrize("vocab", [1, 2, 1000])
def test_memory_is_some_hundred_bytes_a_token(vocab: int) -> None:
    tokens = random.Random(0).choices(range(vocab), k=10_000)
    tracemalloc.start()
    automaton = SuffixAutomaton()
    automaton.extend(tokens)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(automaton._link) <= 2 * len(tokens)
    assert used / len(tokens) < 400
