"""The sampler against transformers' processors, against the distribution it draws from, and against its neighbours."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fireside.engine import sampling_draw
from fireside.engine.messages import SamplingParams
from fireside.engine.sampler import Sampler, SamplingRow
from fireside.engine.sampling_draw import LogitsError
from fireside.engine.sampling_random import mix64, uniform

PROMPT = (3, 5, 5, 8)
OUTPUT = (1, 2, 2, 9)


def params(**fields: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 64, **fields})


def row(index: int = 0, allowed: Tensor | None = None, **fields: Any) -> SamplingRow:
    return SamplingRow(params(**fields), PROMPT, OUTPUT, index, allowed)


def random_logits(rows: int, vocab_size: int, seed: int = 0, peaked: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocab_size, generator=generator) * 3
    if peaked:  # as a language model's: a few tokens hold most of the mass
        logits[:, torch.randperm(vocab_size, generator=generator)[:40]] += 12
    return logits


def frequencies(logits: Tensor, draws: int, **fields: Any) -> Tensor:
    """How often each token is drawn from one row of logits, over as many token indices."""
    sampled = Sampler().sample(logits.expand(draws, -1), [row(index, **fields) for index in range(draws)])
    return torch.bincount(torch.tensor([token.token_id for token in sampled]), minlength=logits.shape[-1]).double()


def chi_square(observed: Tensor, probabilities: Tensor) -> float:
    """Pearson's statistic over the tokens that can occur, in standard deviations above its mean."""
    possible = probabilities > 0
    assert not observed[~possible].any(), "a token of probability 0 was drawn"
    expected = probabilities[possible].double() * observed.sum()
    freedom = int(possible.sum()) - 1
    statistic = float(((observed[possible] - expected) ** 2 / expected).sum())
    return (statistic - freedom) / (2 * max(freedom, 1)) ** 0.5


PROCESSORS: dict[str, tuple[dict[str, Any], list[LogitsProcessor]]] = {
    "temperature": ({"temperature": 0.5}, [TemperatureLogitsWarper(0.5)]),
    "top_k": ({"top_k": 7}, [TopKLogitsWarper(7)]),
    "top_p": ({"top_p": 0.8}, [TopPLogitsWarper(0.8)]),
    "min_p": ({"min_p": 0.1}, [MinPLogitsWarper(0.1)]),
    "top_k, then top_p": ({"top_k": 9, "top_p": 0.7}, [TopKLogitsWarper(9), TopPLogitsWarper(0.7)]),
    "all, at a temperature": (
        {"temperature": 1.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
        [TemperatureLogitsWarper(1.7), TopKLogitsWarper(20), TopPLogitsWarper(0.9), MinPLogitsWarper(0.05)],
    ),
    "repetition_penalty": ({"repetition_penalty": 1.4}, [RepetitionPenaltyLogitsProcessor(1.4)]),
    "logit_bias": ({"logit_bias": {4: 3.0, 7: -100.0}}, [SequenceBiasLogitsProcessor([[[4], 3.0], [[7], -100.0]])]),
    "bias, then penalty": (
        {"logit_bias": {5: 2.0}, "repetition_penalty": 1.4},
        [SequenceBiasLogitsProcessor([[[5], 2.0]]), RepetitionPenaltyLogitsProcessor(1.4)],
    ),
}


@pytest.mark.parametrize(("fields", "processors"), PROCESSORS.values(), ids=PROCESSORS.keys())
def test_draws_from_the_distribution_of_transformers(fields: dict[str, Any], processors: list[LogitsProcessor]) -> None:
    logits = random_logits(1, 50, seed=3) / 2
    ids = torch.tensor([[*PROMPT, *OUTPUT]])
    warped = logits.clone()
    for processor in deepcopy(processors):  # some keep state for one size of vocabulary
        warped = processor(ids, warped)
    assert chi_square(frequencies(logits, 4000, **fields), warped.softmax(-1)[0]) < 5


@pytest.mark.parametrize("peaked", [True, False], ids=["peaked", "flat"])
@pytest.mark.parametrize(
    ("fields", "processors"),
    [
        *PROCESSORS.values(),
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"top_k": 1000, "top_p": 0.95}, [TopKLogitsWarper(1000), TopPLogitsWarper(0.95)]),
        ({"top_k": 200, "min_p": 0.2}, [TopKLogitsWarper(200), MinPLogitsWarper(0.2)]),
        ({"top_p": 0.999, "min_p": 0.01}, [TopPLogitsWarper(0.999), MinPLogitsWarper(0.01)]),
        ({"top_p": 1e-9}, [TopPLogitsWarper(1e-9)]),
    ],
)
def test_inverts_the_distribution_of_transformers(
    fields: dict[str, Any], processors: list[LogitsProcessor], peaked: bool
) -> None:
    """Token for token, in a vocabulary large enough for every short cut and not a multiple of any block."""
    logits = random_logits(1, 5003, seed=1, peaked=peaked)
    warped = logits.double()
    for processor in deepcopy(processors):  # some keep state for one size of vocabulary
        warped = processor(torch.tensor([[*PROMPT, *OUTPUT]]), warped)
    cumulative = warped.softmax(-1)[0].cumsum(0)
    numbers = torch.tensor([uniform(0, index) for index in range(100)], dtype=torch.float64)
    expected = torch.searchsorted(cumulative, numbers * cumulative[-1], right=True).tolist()
    sampled = Sampler().sample(logits.expand(100, -1), [row(index, **fields) for index in range(100)])
    assert [token.token_id for token in sampled] == expected


def test_frequency_and_presence_penalties_as_openai_defines_them() -> None:
    logits = random_logits(1, 20)[0] / 4
    expected = logits.clone()
    for token_id in set(OUTPUT):
        expected[token_id] -= OUTPUT.count(token_id) * 0.6 + 0.9
    observed = frequencies(logits, 4000, frequency_penalty=0.6, presence_penalty=0.9)
    assert chi_square(observed, expected.softmax(-1)) < 5


def test_min_tokens_masks_stop_ids_as_transformers_does() -> None:
    logits = random_logits(1, 20)
    processor = MinNewTokensLengthLogitsProcessor(len(PROMPT), len(OUTPUT) + 1, [2, 9])
    expected = processor(torch.tensor([[*PROMPT, *OUTPUT]]), logits.clone()).softmax(-1)[0]
    rows = [
        SamplingRow(params(stop_token_ids=(2, 9), min_tokens=index + 1), PROMPT, OUTPUT, index) for index in range(2000)
    ]
    sampled = Sampler().sample(logits.expand(2000, -1), rows)
    observed = torch.bincount(torch.tensor([token.token_id for token in sampled]), minlength=20).double()
    assert chi_square(observed, expected) < 5
    enough = [SamplingRow(params(temperature=0.0, stop_token_ids=(7,), min_tokens=4), PROMPT, OUTPUT, 4)]
    logits[0, 7] = 100.0
    assert Sampler().sample(logits, enough)[0].token_id == 7


def bitmask(allowed: set[int], vocab_size: int) -> Tensor:
    words = [sum(1 << bit for bit in range(32) if start + bit in allowed) for start in range(0, vocab_size, 32)]
    return torch.tensor([word - (1 << 32) if word >= 1 << 31 else word for word in words], dtype=torch.int32)


@pytest.mark.parametrize("fields", [{"temperature": 0.0}, {}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.01}])
def test_only_what_the_grammar_allows_is_drawn(fields: dict[str, Any]) -> None:
    logits = random_logits(40, 5003)
    allowed = {0, 31, 32, 63, 64, 1000, 4999, 5002}
    rows = [row(index, bitmask(allowed, 5003), **fields) for index in range(40)]
    drawn = {token.token_id for token in Sampler().sample(logits, rows)}
    assert drawn <= allowed
    assert len(drawn) > 1


def test_tokens_past_the_end_of_the_mask_are_not_allowed() -> None:
    logits = torch.zeros(1, 200)
    logits[0, 150] = 10.0
    mask = bitmask({3, 9}, 100)
    assert Sampler().sample(logits, [row(0, mask, temperature=0.0)])[0].token_id == 3


def test_a_grammar_that_allows_only_a_stop_token_outweighs_min_tokens() -> None:
    logits = random_logits(1, 100)
    for temperature in (0.0, 1.0):
        only = row(0, bitmask({42}, 100), temperature=temperature, min_tokens=5, stop_token_ids=(42, 43))
        assert Sampler().sample(logits, [only])[0].token_id == 42


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    logits = torch.zeros(3, 1000)
    logits[0, [700, 40, 900]] = 2.0
    logits[1] = -3.0
    logits[2, [999, 998]] = 1.0
    for fields in ({"temperature": 0.0}, {"top_k": 1}):
        sampled = Sampler().sample(logits, [row(0, **fields)] * 3)
        assert [token.token_id for token in sampled] == [40, 0, 998]


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-6])
def test_a_temperature_close_to_zero_is_greedy(temperature: float) -> None:
    logits = random_logits(4, 1000)
    for fields in ({}, {"top_p": 0.9}):
        sampled = Sampler().sample(logits, [row(index, temperature=temperature, **fields) for index in range(4)])
        assert [token.token_id for token in sampled] == logits.argmax(-1).tolist()


@pytest.mark.parametrize("peaked", [True, False])
@pytest.mark.parametrize(
    "shape",
    [
        {"top_k": 50},
        {"top_k": 3000},
        {"top_p": 0.3},
        {"top_p": 0.97},
        {"min_p": 0.002},
        {"top_k": 300, "top_p": 0.9, "min_p": 0.01},
        {"top_p": 0.99, "temperature": 0.05},
    ],
)
def test_how_deep_one_looks_changes_no_draw(shape: dict[str, Any], peaked: bool) -> None:
    logits = (random_logits(1, 5003, seed=5, peaked=peaked) * 4).round() / 4  # with many equal logits
    draws = [sampling_draw.Draw(**{"uniform": uniform(1, index), "temperature": 1.0, **shape}) for index in range(40)]
    rows = logits.expand(40, -1)
    ways = [sampling_draw.draw_filtered(rows, draws, depths) for depths in [(5003,), (128, 2048), (128,), (1,)]]
    assert ways[0] == ways[1] == ways[2] == ways[3]


def test_no_draw_lands_on_a_weight_of_zero() -> None:
    """Also at both ends of the interval, where rounding could carry it outside."""
    generator = torch.Generator().manual_seed(0)
    for trial in range(200):
        logits = torch.full((1, 500), float("-inf"))
        possible = torch.randperm(500, generator=generator)[: 1 + trial % 30]
        logits[0, possible] = torch.randn(len(possible), generator=generator) * 8
        for number in (0.0, 1.0 - 2.0**-52, uniform(7, trial)):
            for shape in ({}, {"top_p": 0.9}, {"top_k": 20}):
                draw = sampling_draw.Draw(number, 1.0, **shape)
                kind = sampling_draw.draw_filtered if shape else sampling_draw.draw_plain
                (token_id,) = list(kind(logits, [draw]))
                assert logits[0, int(token_id)] > float("-inf")


def crowd(vocab_size: int) -> list[SamplingRow]:
    """32 rows, with every parameter in some of them."""
    choices: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {},
        {"temperature": 0.7, "logprobs": 3},
        {"top_p": 0.9},
        {"top_k": 40, "top_p": 0.95, "min_p": 0.02},
        {"top_p": 0.99, "temperature": 1.5},
        {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "logprobs": 0},
        {"logit_bias": {5: 4.0, 77: -4.0}, "top_k": 9, "logprobs": 5},
        {"temperature": 0.0, "presence_penalty": 1.0, "min_tokens": 50, "stop_token_ids": (1, 2)},
    ]
    picker = random.Random(0)
    rows = []
    for number in range(32):
        fields = choices[number % len(choices)]
        allowed = bitmask(set(picker.sample(range(vocab_size), 500)), vocab_size) if number % 5 == 4 else None
        rows.append(SamplingRow(params(seed=number, **fields), PROMPT, OUTPUT, number, allowed))
    return rows


@pytest.mark.parametrize("vocab_size", [5003, 8192])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_alone_and_in_any_crowd_is_the_same_to_the_bit(vocab_size: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        logits = random_logits(32, vocab_size, seed=2)
        logits[::2] = random_logits(16, vocab_size, seed=2, peaked=True)
        rows = crowd(vocab_size)
        original = logits.clone()
        alone = [Sampler().sample(logits[index : index + 1], [rows[index]])[0] for index in range(32)]
        for seed in range(3):
            order = list(range(32))
            random.Random(seed).shuffle(order)
            order = order[: 32 - 7 * seed]
            together = Sampler().sample(logits[order], [rows[index] for index in order])
            assert together == [alone[index] for index in order]
        assert torch.equal(logits, original), "the caller's logits were changed"
    finally:
        torch.set_num_threads(before)


def test_logprobs_are_of_the_raw_distribution() -> None:
    logits = random_logits(6, 5003, peaked=True)
    raw = logits.double().log_softmax(-1)
    shaped = {"temperature": 0.3, "logit_bias": {9: 50.0}, "repetition_penalty": 2.0, "top_k": 5}
    for top in (0, 1, 5, 20, 200):
        for number, token in enumerate(
            Sampler().sample(logits, [row(index, logprobs=top, **shaped) for index in range(6)])
        ):
            assert token.logprobs is not None
            assert token.token_id == 9
            assert token.logprobs.logprob == pytest.approx(raw[number, 9].item(), abs=1e-5)
            expected = raw[number].topk(top)
            assert [token_id for token_id, _ in token.logprobs.top] == expected.indices.tolist()
            assert [logprob for _, logprob in token.logprobs.top] == pytest.approx(expected.values.tolist(), abs=1e-5)
    assert Sampler().sample(logits[:1], [row()])[0].logprobs is None


def test_scores_given_tokens() -> None:
    logits = random_logits(150, 300)
    targets = list(range(150))
    raw = logits.double().log_softmax(-1)
    scored = Sampler().score(logits, targets, 2)
    assert [entry.logprob for entry in scored] == pytest.approx([raw[i, i].item() for i in targets], abs=1e-5)
    assert [entry.top[0][0] for entry in scored] == logits.argmax(-1).tolist()
    assert Sampler().score(logits[:0], [], 2) == []


def test_more_logprobs_than_tokens() -> None:
    (token,) = Sampler().sample(random_logits(1, 5), [row(logprobs=9, repetition_penalty=1.0)])
    assert token.logprobs is not None
    assert len(token.logprobs.top) == 5


@pytest.mark.parametrize("fields", [{"temperature": 0.0}, {}, {"top_p": 0.5}, {"temperature": 0.0, "logprobs": 2}])
@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(fields: dict[str, Any], damage: float) -> None:
    logits = random_logits(1, 300)
    logits[0, 123] = damage
    with pytest.raises(LogitsError, match="NaN or infinity"):
        Sampler().sample(logits, [row(**fields)])
    with pytest.raises(LogitsError):
        Sampler().sample(random_logits(1, 300), [row(0, bitmask(set(), 300), **fields)])


def test_rows_and_requests_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 rows of logits for 1 requests"):
        Sampler().sample(random_logits(2, 10), [row()])
    with pytest.raises(ValueError, match="2 rows of logits for 1 tokens"):
        Sampler().score(random_logits(2, 10), [1], 0)


def test_splitmix64_gives_the_published_numbers() -> None:
    """The first outputs for the seed 1234567 in the algorithm's reference implementation."""
    golden, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    outputs = [mix64((1234567 + (index + 1) * golden) & mask) for index in range(5)]
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_uniform_numbers_are_uniform_and_depend_on_seed_and_index_alone() -> None:
    numbers = torch.tensor([[uniform(seed, index) for index in range(100)] for seed in range(-50, 50)])
    assert chi_square(torch.histc(numbers, 100, 0, 1), torch.full((100,), 0.01)) < 5
    assert len(numbers.unique()) > 9_900, "neighbouring seeds must not share their numbers"
    assert abs(float(torch.corrcoef(torch.stack([numbers[:-1].flatten(), numbers[1:].flatten()]))[0, 1])) < 0.05
    assert uniform(2**200 + 5, 3) == uniform(2**200 + 5, 3)
    assert all(0 <= uniform(seed, 0) < 1 for seed in (0, -1, 2**63, 2**64 - 1, 10**40))
