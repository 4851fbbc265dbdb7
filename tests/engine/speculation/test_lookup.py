"""Guesses from text: which, how sure, and within what bounds."""

from __future__ import annotations

import pytest

from fireside.engine.sequence import Sequence
from fireside.engine.speculation import lookup as module
from fireside.engine.speculation.acceptance import MatchRates, Rate
from fireside.engine.speculation.lookup import Guess, Lookup, RecentOutputs, Source
from tests.engine.driving import request


def sequence(prompt: list[int], output: list[int] | None = None) -> Sequence:
    made = Sequence(request("a", prompt, max_tokens=1000), 0, 100_000)
    for token in output or []:
        made.append(token, None)
    return made


def guess(lookup: Lookup, text: Sequence, limit: int = 8) -> Guess:
    lookup.index(text, 1_000_000)
    found = lookup.guess(text, limit)
    assert found is not None
    return found


def test_a_guess_is_what_followed_the_longest_match() -> None:
    text = sequence([1, 2, 3, 4, 5, 6, 9, 3, 4, 7], [2, 3, 4])  # 3 4 came later, 2 3 4 is longer
    found = guess(Lookup(), text)
    assert found.source is Source.LOOKUP
    assert found.tokens == [5, 6, 9, 3, 4, 7, 2, 3]
    assert len(found.chances) == 8
    assert sorted(found.chances, reverse=True) == found.chances
    assert Lookup().guess(text, 8) is None  # nothing was taken in


def test_longer_matches_are_surer() -> None:
    prompt = list(range(100))
    short, long = (guess(Lookup(), sequence(prompt, prompt[10 : 10 + count])) for count in (1, 20))
    assert short.chances[0] < long.chances[0]


def test_how_sure_a_guess_is_is_learned_from_every_token_of_the_answer() -> None:
    prompt = [7, 1, 7, 2]
    faithful, fickle = Lookup(), Lookup()
    before = guess(faithful, sequence(prompt, [7])).chances[0]
    after_copies = guess(faithful, sequence(prompt, [7, 2, 7, 2, 7, 2, 7])).chances[0]
    text = sequence(prompt, [7, 10, 7, 11, 7, 12, 7, 13, 7])  # 7 is known each time, and followed by something new
    after_surprises = guess(fickle, text).chances[0]
    assert after_surprises < before < after_copies


def test_rates_forget() -> None:
    rate = Rate(0.5)
    for _ in range(100):
        rate.observe(False)
    low = rate.value
    for _ in range(15):
        rate.observe(True)
    assert low < 0.01 and rate.value > 0.5


@pytest.mark.parametrize(("length", "expected"), [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.3), (5, 0.4), (99, 0.4)])
def test_rates_go_by_the_length_of_the_match(length: int, expected: float) -> None:
    assert MatchRates([0.1, 0.2, 0.3, 0.4]).survivals(length, 1) == pytest.approx([expected])


def test_chances_of_later_guesses_grow_with_the_match() -> None:
    assert MatchRates([0.5, 0.8]).survivals(1, 3) == pytest.approx([0.5, 0.4, 0.32])


def test_a_long_prompt_is_taken_in_slices() -> None:
    prompt = [*range(500), 3, 4]
    text, lookup = sequence(prompt), Lookup()
    for expected in (200, 200, 102, 0):
        assert lookup.guess(text, 4) is None or expected == 0
        assert lookup.index(text, 200) == expected
    assert guess(lookup, text, 4).tokens == [5, 6, 7, 8]


def test_of_a_text_that_is_too_long_the_last_half_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXT", 100)
    text, lookup = sequence(list(range(1000))), Lookup()
    assert lookup.index(text, 10_000) == 50
    for token in range(2000, 2500):
        text.append(token, None)
        lookup.index(text, 10_000)
        assert len(lookup._own) <= 100
    text.append(2480, None)
    assert guess(lookup, text, 2).tokens == [2481, 2482]


def test_recent_answers_are_guessed_from_where_the_text_itself_has_nothing() -> None:
    recent = RecentOutputs()
    recent.add([10, 11, 12, 13, 14])
    assert recent.index(1000) == 6
    found = guess(Lookup(recent), sequence([1, 2, 3], [11, 12]))
    assert (found.source, found.tokens) == (Source.RECENT, [13, 14])  # up to that answer's end
    assert guess(Lookup(recent), sequence([11, 12, 50], [11, 12])).source is Source.LOOKUP
    own = Lookup(recent)
    prompt_only = sequence([1, 11, 12])
    own.index(prompt_only, 1000)
    assert own.guess(prompt_only, 4) is None  # prompts are looked up in no other text


def test_recent_answers_fall_out_and_memory_stays_bounded() -> None:
    recent = RecentOutputs(max_tokens=100)
    lookup, text = Lookup(recent), sequence([1], [1000])
    for number in range(50):
        recent.add(list(range(1000 + 40 * number, 1040 + 40 * number)))
        recent.index(10_000)
        text.append(1000 + 40 * number, None)
        lookup.index(text, 10_000)
        assert len(recent.young) + len(recent.old) <= 2 * (100 + 41)
    assert guess(lookup, text, 2).tokens == [2961, 2962]  # the latest is known
    text.append(1000, None)
    lookup.index(text, 10_000)
    assert {len(cursor.automaton.text) for cursor in lookup._cursors} == {len(recent.young), len(recent.old)}
    assert all(1001 not in automaton.text for automaton in (recent.young, recent.old))  # the first is forgotten


def test_recent_answers_wait_in_bounded_number_and_are_taken_in_by_slices() -> None:
    recent = RecentOutputs(max_tokens=100)
    for _ in range(10):
        recent.add(list(range(500)))  # of which the last 100 are kept
    assert recent._num_waiting <= 101
    assert [recent.index(40) for _ in range(4)] == [40, 40, 21, 0]
    assert recent.young.text.tolist() == [*range(400, 500), -1]
    recent.add([])
    assert recent.index(10) == 0
