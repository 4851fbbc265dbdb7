"""The engine from outside: what a request is given, alone and among others. The model is `FakeRunner`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fireside.engine.client import EngineBusy, RequestRejected
from fireside.engine.engine import Engine
from fireside.engine.messages import FinishReason, TokenLogprobs
from fireside.engine.runner import ForwardBatch
from tests.engine.driving import Driver, request, run
from tests.engine.fake_runner import FakeRunner, greedy_reference, reference_logits

VOCAB = 48


def make(runner: FakeRunner | None = None, **settings: Any) -> Engine:
    return Engine(runner or FakeRunner(), **{"max_context": 64, "max_batch_tokens": 16, "max_running": 8, **settings})


def assert_scores(scored: TokenLogprobs, before: tuple[int, ...], token_id: int, top: int) -> None:
    """Against log-softmax of what the model would say after `before`."""
    expected = torch.log_softmax(reference_logits(before, VOCAB).double(), -1)
    assert scored.logprob == pytest.approx(expected[token_id].item(), abs=1e-5)
    values, ids = expected.topk(top)
    assert [token for token, _ in scored.top] == ids.tolist()
    assert [logprob for _, logprob in scored.top] == pytest.approx(values.tolist(), abs=1e-5)


# What a request is given


@pytest.mark.parametrize("length", [1, 3, 4, 5, 16, 17, 50])
def test_greedy_tokens_are_those_of_the_model(length: int):
    prompt = tuple(range(1, 1 + length % 40)) + (2,) * (length - length % 40)
    result = run(make(), request("a", prompt, max_tokens=9))["a"]
    assert result.token_ids == greedy_reference(prompt, 9, VOCAB)
    assert result.finish_reason is FinishReason.LENGTH
    assert result.stopped_by is None


def test_a_stop_token_ends_the_answer_and_is_its_last():
    expected = greedy_reference((1, 2, 3), 8, VOCAB)
    stop = expected[4]
    result = run(make(), request("a", (1, 2, 3), stop_token_ids=(stop, 0)))["a"]
    assert result.token_ids == expected[: expected.index(stop) + 1]
    assert (result.finish_reason, result.stopped_by) == (FinishReason.STOP, stop)


def test_stop_tokens_are_masked_before_min_tokens():
    stop = greedy_reference((1, 2, 3), 1, VOCAB)[0]
    result = run(make(), request("a", (1, 2, 3), stop_token_ids=(stop,), min_tokens=3, max_tokens=30))["a"]
    assert len(result.token_ids) >= 3
    assert stop not in result.token_ids[:3]


def test_a_full_context_ends_the_answer():
    result = run(make(max_context=12), request("a", range(8), max_tokens=100))["a"]
    assert result.token_ids == greedy_reference(tuple(range(8)), 4, VOCAB)
    assert result.finish_reason is FinishReason.LENGTH


def test_all_blocks_together_bound_the_context():
    engine = make(FakeRunner(num_blocks=3))
    assert engine.max_context == 12
    result = run(engine, request("a", range(8), max_tokens=100))["a"]
    assert result.token_ids == greedy_reference(tuple(range(8)), 4, VOCAB)


@pytest.mark.parametrize("max_batch_tokens", [3, 8, 64])
def test_logprobs_of_prompt_and_answer(max_batch_tokens: int):
    prompt = tuple(range(3, 22))
    engine = make(max_batch_tokens=max_batch_tokens)
    run(engine, request("warm", prompt))
    result = run(engine, request("a", prompt, max_tokens=4, logprobs=3, prompt_logprobs=2))["a"]
    assert result.cached_tokens == 0, "every position of the prompt has to be computed"
    tokens = prompt + result.token_ids
    assert result.prompt_logprobs is not None and len(result.prompt_logprobs) == len(prompt)
    assert result.prompt_logprobs[0] is None
    for index, scored in enumerate(result.prompt_logprobs[1:], start=1):
        assert scored is not None
        assert_scores(scored, tokens[:index], tokens[index], top=2)
    assert len(result.logprobs) == 4
    for index, scored in enumerate(result.logprobs, start=len(prompt)):
        assert_scores(scored, tokens[:index], tokens[index], top=3)


def test_logprobs_are_not_given_unasked():
    driver = Driver(make())
    driver.submit(request("a", (1, 2)))
    outputs = driver.engine.step()
    assert [(output.logprobs, output.prompt_logprobs) for output in outputs] == [(None, None)]


def test_no_tokens_but_the_prompt_scored():
    prompt = (5, 6, 7)
    result = run(make(), request("a", prompt, max_tokens=0, prompt_logprobs=0))["a"]
    assert result.token_ids == () and result.finish_reason is FinishReason.LENGTH
    assert result.prompt_logprobs is not None
    for index in (1, 2):
        assert_scores(result.prompt_logprobs[index], prompt[:index], prompt[index], top=0)


def test_no_tokens_and_nothing_to_score_costs_no_pass():
    runner = FakeRunner()
    result = run(make(runner), request("a", (1, 2), max_tokens=0))["a"]
    assert result.finish_reason is FinishReason.LENGTH
    assert runner.num_passes == 0


# The prefix cache


def test_the_next_turn_starts_from_the_answer_of_the_last():
    runner = FakeRunner()
    engine = make(runner)
    prompt = tuple(range(10))
    answer = run(engine, request("a", prompt, max_tokens=8))["a"].token_ids
    before = runner.num_tokens
    turn = (*prompt, *answer, 40, 41)
    result = run(engine, request("b", turn, max_tokens=1))["b"]
    assert result.cached_tokens == 16, "of 20 tokens; the 18th was never computed, its block not full"
    assert runner.num_tokens - before == 4
    assert result.token_ids == greedy_reference(turn, 1, VOCAB)
    assert engine.stats.cache_hit_tokens == 16


def test_many_answers_to_one_prompt_compute_it_once():
    runner = FakeRunner()
    engine = make(runner, max_batch_tokens=64)
    prompt = tuple(range(12))
    results = run(engine, *(request(f"a{i}", prompt, max_tokens=3, temperature=1.0, seed=i) for i in range(5)))
    assert runner.passes[0] == [12]
    assert sorted(runner.passes[1]) == [1, 4, 4, 4, 4], "8 tokens shared, the last block is needed for its logits"
    assert len({result.token_ids for result in results.values()}) > 1


# Among others


CROWD = [
    request("greedy", range(9), max_tokens=14),
    request("seeded", range(9), max_tokens=14, temperature=1.0, seed=7),
    request("nucleus", range(20, 31), max_tokens=10, temperature=1.3, top_p=0.8, top_k=20, seed=3),
    request("scored", (4, 4, 4, 4, 4, 4), max_tokens=12, temperature=0.7, seed=1, logprobs=2, prompt_logprobs=1),
    request("penalised", (1, 2, 1, 2), max_tokens=16, repetition_penalty=1.3, frequency_penalty=0.5),
    request("hasty", range(9), max_tokens=14, temperature=1.0, seed=7, priority=-1),
    *(request(f"other{i}", range(i, i + 3 * i + 1), max_tokens=5 + i, temperature=1.0, seed=i) for i in range(8)),
]


def essence(result: Any) -> tuple[Any, ...]:
    """What must not depend on the others."""
    return result.token_ids, result.logprobs, result.prompt_logprobs, result.finish_reason


@pytest.mark.parametrize(
    ("num_blocks", "max_batch_tokens", "max_running", "preempts"),
    [(400, 64, 32, False), (400, 5, 4, False), (12, 16, 32, True), (9, 7, 3, True)],
)
def test_the_same_alone_in_a_crowd_after_preemption_and_from_a_warm_cache(
    num_blocks: int, max_batch_tokens: int, max_running: int, preempts: bool
):
    alone = {one.id: essence(run(make(), one)[one.id]) for one in CROWD}
    engine = make(FakeRunner(num_blocks), max_batch_tokens=max_batch_tokens, max_running=max_running, max_context=36)
    for _ in ("cold", "warm"):
        results = run(engine, *CROWD)
        assert {name: essence(result) for name, result in results.items()} == alone
    assert (engine.stats.preemptions > 0) == preempts
    assert engine.stats.cache_hit_tokens > 0


def test_every_decoding_request_gets_a_token_in_every_step_while_a_long_prompt_comes_in():
    driver = Driver(make(FakeRunner(num_blocks=300), max_context=1000))
    driver.submit(*(request(f"s{i}", (i, i + 1), max_tokens=60) for i in range(4)))
    driver.step()
    driver.submit(request("long", [i % VOCAB for i in range(400)]))
    driver.drain()
    for i in range(4):
        assert driver.results[f"s{i}"].steps == list(range(1, 61))
    assert driver.results["long"].steps[0] > 30


def test_a_steady_stream_of_newcomers_starves_nobody():
    driver = Driver(make(FakeRunner(num_blocks=10), max_context=40, max_waiting=1000))
    driver.submit(*(request(f"first{i}", (i, 1, 2), max_tokens=10) for i in range(4)))
    driver.step()
    driver.submit(request("large", range(30), max_tokens=10))
    for i in range(200):
        if driver.results["large"].ended:
            break
        driver.submit(request(f"late{i}", (7, i % VOCAB), max_tokens=10))
        driver.step()
    assert driver.results["large"].ended
    ended = [name for name, result in driver.results.items() if name.startswith("late") and result.ended]
    assert not ended, "the queue is first come first served"
    driver.drain()


# Ends before the end


def test_cancel_frees_the_blocks_at_once():
    driver = Driver(make())
    driver.submit(request("a", range(10), max_tokens=50), request("b", (1, 2), max_tokens=5))
    driver.step()
    assert driver.engine.stats.running == 2
    driver.engine.cancel("a")
    stats = driver.engine.stats
    assert stats.running == 1
    assert stats.blocks_free + stats.blocks_cached == stats.blocks_total - 1
    driver.step()
    assert driver.results["a"].finish_reason is FinishReason.CANCELLED
    assert driver.drain()["b"].token_ids == greedy_reference((1, 2), 5, VOCAB)


def test_cancel_of_a_waiting_request_is_reported_by_a_step():
    driver = Driver(make(max_running=1))
    driver.submit(request("a", (1,), max_tokens=1), request("b", (2,), max_tokens=1))
    driver.engine.cancel("b")
    driver.engine.cancel("nobody")
    driver.drain()
    assert driver.results["b"].finish_reason is FinishReason.CANCELLED
    assert driver.results["a"].finish_reason is FinishReason.LENGTH


def test_an_id_is_free_again_after_its_request_ended():
    engine = make()
    first = run(engine, request("a", (1, 2)))["a"]
    assert essence(run(engine, request("a", (1, 2)))["a"]) == essence(first)


def test_an_idle_engine_has_no_work():
    runner = FakeRunner()
    engine = make(runner)
    assert not engine.has_work
    run(engine, request("a", (1,), max_tokens=2))
    assert not engine.has_work
    passes = runner.num_passes
    assert engine.step() == []
    assert runner.num_passes == passes


# What cannot be served


def test_a_prompt_that_cannot_fit_is_refused_with_both_numbers():
    with pytest.raises(RequestRejected, match=r"20 tokens.*16 tokens") as raised:
        make(max_context=16).submit(request("a", range(20)))
    assert raised.value.kind == "context_length"


@pytest.mark.parametrize(("max_tokens", "fits"), [(1, False), (0, True)])
def test_a_prompt_that_fills_the_context_leaves_no_room_for_an_answer(max_tokens: int, fits: bool):
    engine = make(max_context=8)
    if fits:
        assert run(engine, request("a", range(8), max_tokens=max_tokens, prompt_logprobs=0))["a"].ended
    else:
        with pytest.raises(RequestRejected):
            engine.submit(request("a", range(8), max_tokens=max_tokens))


@pytest.mark.parametrize(
    ("prompt", "sampling", "named"),
    [
        ((), {}, "prompt is empty"),
        ((1, VOCAB), {}, f"token id {VOCAB}"),
        ((1, -1), {}, "token id -1"),
        ((1,), {"stop_token_ids": (99,)}, "token id 99"),
        ((1,), {"logit_bias": {-5: 1.0}}, "token id -5"),
        ((1,), {"preamble": 2}, "preamble_tokens is 2"),
        ((1,), {"preamble": -1}, "preamble_tokens is -1"),
        ((1,), {"logit_bias": {5: math.nan}}, "logit_bias"),
        ((1,), {"max_tokens": -1}, "max_tokens"),
        ((1,), {"temperature": -0.1}, "temperature"),
        ((1,), {"temperature": math.nan}, "temperature"),
        ((1,), {"top_p": 0.0}, "top_p"),
        ((1,), {"min_p": 1.5}, "min_p"),
        ((1,), {"repetition_penalty": 0.0}, "repetition_penalty"),
        ((1,), {"frequency_penalty": math.inf}, "frequency_penalty"),
        ((1,), {"logprobs": -1}, "logprobs"),
    ],
)
def test_an_impossible_request_is_refused_by_name(prompt: tuple[int, ...], sampling: dict[str, Any], named: str):
    engine = make()
    with pytest.raises(RequestRejected, match=named) as raised:
        engine.submit(request("a", prompt, **sampling))
    assert raised.value.kind == "invalid"
    assert not engine.has_work


def test_an_id_in_use_is_refused():
    engine = make()
    engine.submit(request("a", (1,)))
    with pytest.raises(RequestRejected, match="'a'"):
        engine.submit(request("a", (2,)))


def test_a_full_queue_is_busy():
    engine = make(max_running=1, max_waiting=2)
    engine.submit(request("a", (1,)))
    engine.submit(request("b", (2,)))
    with pytest.raises(EngineBusy):
        engine.submit(request("c", (3,)))
    engine.step()
    engine.submit(request("c", (3,)))


def test_logits_that_are_not_numbers_hurt_their_own_request_only():
    class Damaged(FakeRunner):
        def forward(self, batch: ForwardBatch) -> Tensor:
            logits = super().forward(batch)
            starts = batch.query_starts.tolist()
            for row, flat in enumerate(batch.logit_indices.tolist()):
                owner = sum(start <= flat for start in starts) - 1
                if self.memory[int(batch.block_tables[owner][0])][0] == 13:
                    logits[row] = math.nan
            return logits

    results = run(make(Damaged()), request("bad", (13, 1)), request("good", (1, 2)), request("fine", (3, 4)))
    assert results["bad"].rejected is not None and results["bad"].rejected.kind == "invalid"
    assert results["good"].token_ids == greedy_reference((1, 2), 8, VOCAB)
    assert results["fine"].token_ids == greedy_reference((3, 4), 8, VOCAB)


def test_stats_count_what_happened():
    engine = make()
    run(engine, request("a", range(10), max_tokens=4), request("b", range(20, 25), max_tokens=2))
    stats = engine.stats
    assert (stats.prompt_tokens, stats.generated_tokens) == (15, 6)
    assert stats.steps == engine.runner.num_passes
    assert stats.blocks_total == 64
    run(engine, request("c", range(10), max_tokens=1))
    assert engine.stats.cache_hit_tokens == 8
