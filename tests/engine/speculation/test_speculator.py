"""Guessing changes what an answer costs, and nothing else."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.engine.engine import Engine
from fireside.engine.messages import GenerationRequest, SamplingParams
from fireside.engine.speculation.costs import PassCosts
from fireside.engine.speculation.lookup import Guess, Source
from fireside.engine.speculation.speculator import Speculator
from tests.engine.driving import Driver, request, run
from tests.engine.speculation.drafting import DRAFTS, FEW, TYPICAL, accepted, drafted, guessing

sampling = st.builds(
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
)


@settings(max_examples=100, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, FEW - 1), min_size=1, max_size=40), min_size=1, max_size=4),
    params=st.lists(sampling, min_size=4, max_size=4),
    max_draft=st.integers(1, 15),
    draft=st.sampled_from(sorted(DRAFTS)),
    recent=st.booleans(),
    num_blocks=st.sampled_from([64, 26, 30]),
    max_batch_tokens=st.sampled_from([32, 5]),
    again=st.booleans(),
    predicted=st.lists(st.integers(0, FEW - 1), max_size=30),
)
def test_guessing_changes_no_token_and_no_number(
    prompts: list[list[int]],
    params: list[SamplingParams],
    max_draft: int,
    draft: str,
    recent: bool,
    num_blocks: int,
    max_batch_tokens: int,
    again: bool,
    predicted: list[int],
) -> None:
    """Nor with blocks for one request at a time, nor a second time: with a warm cache, and recent answers."""
    requests = [
        GenerationRequest(id=str(index), prompt_ids=tuple(prompt), sampling=one, predicted_ids=tuple(predicted))
        for index, (prompt, one) in enumerate(zip(prompts, params, strict=False))
    ]
    plain = guessing(0)
    engine = guessing(
        max_draft, draft=draft, recent=recent, num_blocks=num_blocks, max_context=100, max_batch_tokens=max_batch_tokens
    )
    if again:
        run(engine, *requests)
    expected, actual = run(plain, *requests), run(engine, *requests)
    for name, result in expected.items():
        cost = {"steps": [], "cached_tokens": 0, "prediction": (0, 0)}
        assert replace(actual[name], **cost) == replace(result, **cost)
    assert accepted(engine) <= drafted(engine)
    engine.check_integrity()


@pytest.mark.parametrize("max_draft", [3, 7, 15])
def test_right_guesses_save_passes(max_draft: int) -> None:
    def answered(engine: Engine) -> int:
        result = run(engine, request("a", [0] * 8, max_tokens=100))["a"]
        assert len(result.token_ids) == 100
        return engine.stats.steps

    assert answered(guessing(0, vocab=1)) == 100  # a model that can only repeat itself
    engine = guessing(max_draft, vocab=1)
    steps = answered(engine)
    assert steps < 200 / max_draft
    assert accepted(engine) == drafted(engine) == 100 - steps


def test_text_that_does_not_repeat_is_soon_guessed_no_more() -> None:
    """The prompt holds every token, so that there is a match everywhere; what follows is random."""
    engine = guessing(7, vocab=48, max_context=400, num_blocks=128, recent=False)
    prompt = list(range(48)) * 2
    random.Random(0).shuffle(prompt)
    run(engine, request("a", prompt, max_tokens=300))
    assert drafted(engine) < 45


def test_a_right_prediction_saves_passes_and_is_counted() -> None:
    asked = request("a", [5, 6, 7], max_tokens=60)
    answer = run(guessing(0, vocab=48), asked)["a"].token_ids
    wrong = (*answer[:30], 0, 0, *answer[31:])  # one token is another, and one more
    for predicted, most in ((answer, 8), (wrong, 14)):
        engine = guessing(15, vocab=48)
        result = run(engine, msgspec.structs.replace(asked, predicted_ids=predicted))["a"]
        assert result.token_ids == answer
        assert len(result.steps) <= most
        good, bad = result.prediction
        assert good == accepted(engine, Source.PREDICTION) >= 60 - most
        assert good + bad == drafted(engine, Source.PREDICTION)
        assert bool(bad) == (predicted is wrong)


def test_an_answer_given_before_is_guessed_from_it() -> None:
    engine = guessing(7, vocab=48)
    asked = [request(name, [5, 6, 7], max_tokens=60) for name in ("a", "b")]
    first, second = (run(engine, one)[one.id] for one in asked)
    assert first.token_ids == second.token_ids
    assert accepted(engine, Source.RECENT) > 30
    assert len(second.steps) < len(first.steps) * 2 / 3
    alone = guessing(7, vocab=48, recent=False)
    for one in asked:
        run(alone, one)
    assert drafted(alone, Source.RECENT) == 0


def test_a_cancelled_answer_is_not_guessed_from() -> None:
    """Who hangs up has often seen something that nobody should get."""
    engine = guessing(7, vocab=48)
    driver = Driver(engine)
    driver.submit(request("a", [5, 6, 7], max_tokens=60))
    for _ in range(30):
        driver.step()
    engine.cancel("a")
    driver.drain()
    run(engine, request("b", [5, 6, 7], max_tokens=60))
    assert drafted(engine, Source.RECENT) == 0


@pytest.mark.parametrize(("num_decoding", "expected"), [(1, 15), (2, 11), (4, 6), (16, 0), (64, 0)])
def test_the_more_run_the_less_is_guessed(num_decoding: int, expected: int) -> None:
    """A pass over many tokens computes more than it reads, so that each guess costs more."""
    speculator = Speculator(15, costs=PassCosts({1: 1.0, 4: 1.2, 8: 1.6, 16: 2.6, 32: 5.2}))
    guesses = [Guess(Source.LOOKUP, [0] * 15, [0.9**depth for depth in range(1, 16)]) for _ in range(num_decoding)]
    chosen = speculator._choose(guesses, num_decoding)
    assert max(chosen.values(), default=0) <= expected
    if expected:
        assert chosen.total() > 0


def test_the_likeliest_guesses_are_checked_first() -> None:
    speculator = Speculator(15, costs=TYPICAL)
    sure = Guess(Source.LOOKUP, [0] * 4, [0.99, 0.98, 0.97, 0.96])
    unsure = Guess(Source.LOOKUP, [0] * 4, [0.3, 0.1, 0.03, 0.01])
    chosen = speculator._choose([unsure, sure], 2)
    assert chosen[id(sure)] >= 3
    assert chosen[id(unsure)] <= 1
    assert not speculator._choose([Guess(Source.LOOKUP, [0] * 2, [0.1, 0.05])], 1)


@pytest.mark.parametrize("draft", sorted(DRAFTS))
def test_guesses_take_no_blocks_from_others(draft: str) -> None:
    """Two sequences fill all blocks to the last token: guesses beyond that are dropped and nobody is preempted."""
    engine = guessing(7, vocab=1, num_blocks=4, max_context=8, draft=draft)
    results = run(engine, *(request(name, [0] * 5, max_tokens=3) for name in "ab"))
    assert [len(result.token_ids) for result in results.values()] == [3, 3]
    assert engine.stats.preemptions == 0


@pytest.mark.parametrize(("draft", "vocab"), [("none", 1), ("right", 500)])
def test_a_guess_leaves_a_block_for_each_that_runs(draft: str, vocab: int) -> None:
    """One block is free. Guesses for the first sequence could take it, and the second needs it for its next token."""
    engine = guessing(15, draft=draft, vocab=vocab, num_blocks=5, max_context=20)
    second = range(1, 9) if vocab > 1 else [0] * 8
    run(engine, request("a", [0] * 7, max_tokens=12), request("b", second, max_tokens=2))
    assert engine.stats.preemptions == 0
    assert drafted(engine) > 0
