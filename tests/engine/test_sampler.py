"""The sampler against transformers' processors, against the distribution it draws from, and against its neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fireside.engine.messages import SamplingParams
from fireside.engine.sampler import Sampler, SamplingRow

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
    for processor in processors:
        warped = processor(ids, warped)
    assert chi_square(frequencies(logits, 4000, **fields), warped.softmax(-1)[0]) < 5
