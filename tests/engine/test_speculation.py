"""Guessing changes what an answer costs, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.engine.engine import Engine
from fireside.engine.messages import GenerationRequest, SamplingParams
from fireside.engine.sequence import Sequence
from fireside.engine.speculation import LENGTHS, PromptLookup, make_drafts
from tests.engine.driving import request, run
from tests.engine.fake_runner import FakeRunner

FEW = 3  # tokens in the vocabulary: so that guesses are often right


def make(speculative_tokens: int, vocab: int = FEW, num_blocks: int = 64) -> Engine:
    runner = FakeRunner(num_blocks, vocab_size=vocab)
    return Engine(runner, max_context=200, max_batch_tokens=32, speculative_tokens=speculative_tokens)


def naive(tokens: list[int], limit: int) -> list[int]:
    """What followed the last earlier occurrence of the longest tail, periodically continued."""
    for length in LENGTHS:
        tail = tokens[-length:]
        if len(tokens) <= length:
            continue
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == tail:
                text = list(tokens)
                while len(text) < len(tokens) + limit:
                    text.append(text[start + length + len(text) - len(tokens)])
                return text[len(tokens) :]
    return []


@settings(deadline=None)
@given(
    prompt=st.lists(st.integers(0, FEW - 1), min_size=1, max_size=30),
    output=st.lists(st.integers(0, FEW - 1), max_size=30),
    room=st.integers(1, 8),
)
def test_a_draft_is_what_followed_last_time(prompt: list[int], output: list[int], room: int) -> None:
    lookup = PromptLookup(max_draft=8)
    lookup._length = 8
    for end in range(len(output) + 1):  # asked after every token, as the engine does
        draft = lookup.draft(prompt, output[:end], room)
        assert draft == naive([*prompt, *output[:end]], room)


def test_drafts_grow_with_success_and_pause_after_failures() -> None:
    lookup = PromptLookup(max_draft=8)
    text = [1, 2, 3, 4] * 5
    assert len(lookup.draft(text, [], room=8)) == 4
    lookup.learn(4, 4, len(text))
    assert len(lookup.draft(text, [], room=8)) == 8
    assert lookup.draft(text, [], room=0) == []
    for _ in range(5):
        lookup.learn(8, 0, len(text))
    assert lookup.draft(text, [], room=8) == []
    later = text * 5
    assert len(lookup.draft(later, [], room=8)) == 1  # again, and carefully


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, FEW - 1), min_size=1, max_size=40), min_size=1, max_size=4),
    params=st.builds(
        SamplingParams,
        max_tokens=st.integers(1, 60),
        temperature=st.sampled_from([0.0, 0.0, 1.0]),
        seed=st.integers(0, 5),
        stop_token_ids=st.sampled_from([(), (), (2,)]),
        min_tokens=st.sampled_from([0, 10]),
        logprobs=st.sampled_from([None, 1]),
        prompt_logprobs=st.sampled_from([None, None, 0]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
        frequency_penalty=st.sampled_from([0.0, 0.4]),
    ),
    speculative_tokens=st.integers(1, 10),
)
def test_guessing_changes_no_token_and_no_number(
    prompts: list[list[int]], params: SamplingParams, speculative_tokens: int
) -> None:
    requests = [
        GenerationRequest(id=str(index), prompt_ids=tuple(prompt), sampling=params)
        for index, prompt in enumerate(prompts)
    ]
    plain, guessing = make(0), make(speculative_tokens)
    expected, actual = run(plain, *requests), run(guessing, *requests)
    for name, result in expected.items():
        assert replace(actual[name], steps=[]) == replace(result, steps=[])
    assert guessing.stats.accepted_tokens <= guessing.stats.drafted_tokens
    guessing.check_integrity()
    assert guessing.stats.running == 0


@pytest.mark.parametrize("speculative_tokens", [3, 7])
def test_right_guesses_save_passes(speculative_tokens: int) -> None:
    def prepared(tokens: int) -> tuple[int, Engine]:
        engine = make(tokens, vocab=1)  # a model that can only repeat itself
        result = run(engine, request("a", [0] * 8, max_tokens=100))["a"]
        assert len(result.token_ids) == 100
        return engine.stats.steps, engine

    plain, _ = prepared(0)
    steps, engine = prepared(speculative_tokens)
    assert plain == 100
    assert steps < plain / speculative_tokens
    assert engine.stats.accepted_tokens == engine.stats.drafted_tokens == 100 - steps


@pytest.mark.parametrize(("running", "longest"), [(1, 7), (2, 7), (4, 3), (8, 1), (9, 0), (32, 0)])
def test_the_more_run_the_less_is_guessed(running: int, longest: int) -> None:
    """A step over many tokens computes more than it reads: there a wrong guess would slow everybody down."""
    sequences = [Sequence(request(str(index), [0] * 40, max_tokens=50), index, 200) for index in range(running)]
    for sequence in sequences:
        sequence.decoding = True
        sequence.lookup = PromptLookup(max_draft=7)
        sequence.lookup.learn(7, 7, 40)  # it has had success
    make_drafts(sequences, 7)
    assert {len(sequence.draft) for sequence in sequences} == {min(longest, 6)}


def test_guesses_take_no_blocks_from_others() -> None:
    """Two sequences fill all blocks to the last token: guesses beyond that are dropped and nobody is preempted."""
    runner = FakeRunner(4, vocab_size=1)
    engine = Engine(runner, max_context=8, max_batch_tokens=32, speculative_tokens=7)
    results = run(engine, *(request(name, [0] * 5, max_tokens=3) for name in "ab"))
    assert [len(result.token_ids) for result in results.values()] == [3, 3]
    assert engine.stats.preemptions == 0


def test_no_guesses_where_rounding_depends_on_the_batch() -> None:
    runner = FakeRunner(64, vocab_size=1)
    runner.batch_invariant = False
    engine = Engine(runner, max_context=200, speculative_tokens=7)
    run(engine, request("a", [0] * 8, max_tokens=20))
    assert engine.stats.drafted_tokens == 0
