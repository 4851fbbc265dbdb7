"""Guesses from text: which, how sure, and within what bounds."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from fireside.engine.sequence import Sequence
from fireside.engine.speculation import lookup as module
from fireside.engine.speculation.acceptance import MatchRates, Rate
from fireside.engine.speculation.lookup import Guess, Lookup, RecentOutputs, Source
from tests.engine.driving import request


def sequence(prompt: list[int], output: list[int] | None = None, predicted: tuple[int, ...] = ()) -> Sequence:
    asked = msgspec.structs.replace(request("a", prompt, max_tokens=1000), predicted_ids=predicted)
    made = Sequence(asked, 0, 100_000)
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
    found = guess(Lookup(text), text)
    assert found.source is Source.LOOKUP
    assert found.tokens == [5, 6, 9, 3, 4, 7, 2, 3]
    assert len(found.chances) == 8
    assert sorted(found.chances, reverse=True) == found.chances
    assert Lookup(text).guess(text, 8) is None  # nothing was taken in


def test_longer_matches_are_surer() -> None:
    prompt = list(range(100))
    texts = (sequence(prompt, prompt[10 : 10 + count]) for count in (1, 20))
    short, long = (guess(Lookup(text), text) for text in texts)
    assert short.chances[0] < long.chances[0]


def test_how_sure_a_guess_is_is_learned_from_every_token_of_the_answer() -> None:
    prompt = [7, 1, 7, 2]
    before, after_copies, after_surprises = (
        guess(Lookup(text), text).chances[0]
        for text in (
            sequence(prompt, [7]),
            sequence(prompt, [7, 2, 7, 2, 7, 2, 7]),
            sequence(prompt, [7, 10, 7, 11, 7, 12, 7, 13, 7]),  # 7 is known each time, and followed by something new
        )
    )
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
    text = sequence(prompt)
    lookup = Lookup(text)
    for expected in (200, 200, 102, 0):
        assert lookup.guess(text, 4) is None or expected == 0
        assert lookup.index(text, 200) == expected
    assert guess(lookup, text, 4).tokens == [5, 6, 7, 8]


def test_of_a_text_that_is_too_long_the_last_half_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXT", 100)
    text = sequence(list(range(1000)))
    lookup = Lookup(text)
    assert lookup.index(text, 10_000) == 50
    for token in range(2000, 2500):
        text.append(token, None)
        lookup.index(text, 10_000)
        assert len(lookup._own) <= 100
    text.append(2480, None)
    assert guess(lookup, text, 2).tokens == [2481, 2482]


def test_no_token_counts_twice_when_the_text_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = Counter[str]()
    monkeypatch.setattr(module, "MAX_TEXT", 100)
    monkeypatch.setattr(MatchRates, "observe", lambda rates, length, hit: observed.update([name_of[id(rates)]]))
    recent = RecentOutputs()
    recent.add(list(range(10)))
    recent.index(1000)
    text = sequence([50])
    lookup = Lookup(text, recent)
    name_of = {id(rates): source for source, rates in lookup._rates.items()}
    for token in [*range(10)] * 50:
        text.append(token, None)
        lookup.index(text, 10_000)
    assert 400 < observed[Source.LOOKUP] < 500
    assert 40 * 10 < observed[Source.RECENT] < 500
    assert len(lookup._own) <= 100


def test_recent_answers_are_guessed_from_where_the_text_itself_has_nothing() -> None:
    recent = RecentOutputs()
    recent.add([10, 11, 12, 13, 14])
    assert recent.index(1000) == 6
    text, known = sequence([1, 2, 3], [11, 12]), sequence([11, 12, 50], [11, 12])
    found = guess(Lookup(text, recent), text)
    assert (found.source, found.tokens) == (Source.RECENT, [13, 14])  # up to that answer's end
    assert guess(Lookup(known, recent), known).source is Source.LOOKUP
    prompt = sequence([1, 11, 12])
    lookup = Lookup(prompt, recent)
    lookup.index(prompt, 1000)
    assert lookup.guess(prompt, 4) is None  # prompts are looked up in no other text


def test_a_prediction_is_guessed_from_the_first_token_on() -> None:
    text = sequence([1, 2, 3], predicted=(20, 21, 22, 23, 24))
    lookup = Lookup(text)
    found = guess(lookup, text)
    assert (found.source, found.tokens) == (Source.PREDICTION, [20, 21, 22, 23, 24])
    assert found.chances[0] > 0.5
    for token in (20, 21, 90, 22, 23):  # one token is not as predicted
        text.append(token, None)
    assert guess(lookup, text).tokens == [24]


def test_what_stands_in_prompt_and_prediction_is_guessed_as_predicted() -> None:
    text = sequence([20, 21, 22, 30, 1], [20, 21, 22], predicted=(20, 21, 22, 40))
    assert guess(Lookup(text), text).tokens == [40]
    text = sequence([20, 21, 22, 30, 1], [50, 22, 30], predicted=(20, 21, 22, 40))
    found = guess(Lookup(text), text)
    assert (found.source, found.tokens[0]) == (Source.LOOKUP, 1)


def test_a_prediction_is_taken_in_by_slices_too() -> None:
    text = sequence(list(range(50)), [1000], predicted=tuple(range(1000, 1100)))
    lookup = Lookup(text)
    assert [lookup.index(text, 40) for _ in range(5)] == [40, 40, 40, 33, 0]
    assert guess(lookup, text, 2).tokens == [1001, 1002]


def test_recent_answers_fall_out_and_memory_stays_bounded() -> None:
    recent = RecentOutputs(max_tokens=100)
    text = sequence([1], [1000])
    lookup = Lookup(text, recent)
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
