"""The sampler: from logits and each request's parameters to the next tokens, many requests at once.

The order of operations, which is transformers' and vLLM's:

1. logprobs are taken from the raw logits;
2. logit bias;
3. repetition penalty, over prompt and output: positive logits are divided by it, negative ones multiplied;
4. frequency and presence penalties, over the output;
5. stop tokens are masked while fewer than `min_tokens` were drawn;
6. the grammar's mask;
7. temperature 0 or top-k 1: the largest logit, the lowest id among equals;
8. otherwise temperature, top-k, top-p, min-p, and a draw (see `sampling_draw`).

A request's result is the same to the bit whatever the other rows are; the tests hold it to that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor

from fireside.engine.messages import SamplingParams, TokenLogprobs
from fireside.engine.sampling_draw import (
    Draw,
    block_sums,
    check_finite,
    draw_filtered,
    draw_plain,
    greedy,
    largest,
    weights,
)
from fireside.engine.sampling_random import uniform

_MAX_ROWS = 64  # worked on at once; bounds the temporary memory of scoring a long prompt


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """One request's side of one draw."""

    params: SamplingParams
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]  # drawn so far
    token_index: int  # of the token to draw; the first is 0
    allowed: Tensor | None = None  # int32 [ceil(vocab / 32)], bit i of word w allows token 32 w + i (llguidance's)


@dataclass(frozen=True, slots=True)
class SampledToken:
    token_id: int
    logprobs: TokenLogprobs | None = None  # where the request asked for them


class Sampler:
    """Draws next tokens and scores given ones. Holds no state of any request."""

    @torch.inference_mode()
    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[SampledToken]:
        """One token per row of logits [B, vocab] (float32, left as they are). Raises `LogitsError`."""
        if logits.shape[0] != len(rows):
            raise ValueError(f"{logits.shape[0]} rows of logits for {len(rows)} requests")
        logits = logits.float().contiguous()
        drawn = [0] * len(rows)
        kinds = [_kind(row.params, logits.shape[1]) for row in rows]
        for kind in _Kind:
            for chunk in _chunks([index for index, its_kind in enumerate(kinds) if its_kind is kind]):
                part = [rows[index] for index in chunk]
                x = _take(logits, chunk)
                if any(_is_edited(row) for row in part):
                    x = _edited(x.clone(), part)
                for index, token_id in zip(chunk, _draw(x, part, kind), strict=True):
                    drawn[index] = token_id
        scores = self._scores_of_drawn(logits, rows, drawn)
        return [SampledToken(token_id, scores.get(index)) for index, token_id in enumerate(drawn)]

    @torch.inference_mode()
    def score(self, logits: Tensor, targets: Sequence[int], top: int) -> list[TokenLogprobs]:
        """The log-probabilities of given tokens under logits [L, vocab], each with the `top` likeliest at its place."""
        if logits.shape[0] != len(targets):
            raise ValueError(f"{logits.shape[0]} rows of logits for {len(targets)} tokens")
        logits = logits.float().contiguous()
        scored: list[TokenLogprobs] = []
        for chunk in _chunks(range(len(targets))):
            scored += _score(logits[chunk[0] : chunk[-1] + 1], [targets[index] for index in chunk], top)
        return scored

    def _scores_of_drawn(
        self, logits: Tensor, rows: Sequence[SamplingRow], drawn: Sequence[int]
    ) -> dict[int, TokenLogprobs]:
        scores: dict[int, TokenLogprobs] = {}
        for top in {row.params.logprobs for row in rows}:
            if top is not None:
                indices = [index for index, row in enumerate(rows) if row.params.logprobs == top]
                scored = self.score(_take(logits, indices), [drawn[index] for index in indices], top)
                scores.update(zip(indices, scored, strict=True))
        return scores


class _Kind(Enum):
    """The three ways to a token, from the cheapest to the dearest."""

    GREEDY = auto()
    PLAIN = auto()  # from the whole distribution
    FILTERED = auto()  # from what top-k, top-p and min-p leave of it


def _kind(params: SamplingParams, vocab_size: int) -> _Kind:
    if params.temperature <= 0.0 or params.top_k == 1:
        return _Kind.GREEDY
    if 0 < params.top_k < vocab_size or params.top_p < 1.0 or params.min_p > 0.0:
        return _Kind.FILTERED
    return _Kind.PLAIN


def _draw(x: Tensor, rows: Sequence[SamplingRow], kind: _Kind) -> list[int]:
    if kind is _Kind.GREEDY:
        return [int(token_id) for token_id in greedy(x).tolist()]
    draws = [
        Draw(
            uniform=uniform(row.params.seed, row.token_index),
            temperature=row.params.temperature,
            top_k=row.params.top_k if row.params.top_k < x.shape[1] else 0,
            top_p=row.params.top_p,
            min_p=row.params.min_p,
        )
        for row in rows
    ]
    if kind is _Kind.PLAIN:
        return [int(token_id) for token_id in draw_plain(x, draws).tolist()]
    return draw_filtered(x, draws)


def _take(logits: Tensor, indices: Sequence[int]) -> Tensor:
    """Some rows: a view where they lie together."""
    first, last = indices[0], indices[-1]
    return logits[first : last + 1] if last - first + 1 == len(indices) else logits[list(indices)]


def _is_edited(row: SamplingRow) -> bool:
    params = row.params
    return bool(
        row.allowed is not None
        or params.logit_bias
        or params.repetition_penalty != 1.0
        or ((params.frequency_penalty or params.presence_penalty) and row.output_ids)
        or (row.token_index < params.min_tokens and params.stop_token_ids)
    )


def _chunks(indices: Sequence[int]) -> Iterable[Sequence[int]]:
    return (indices[start : start + _MAX_ROWS] for start in range(0, len(indices), _MAX_ROWS))


class _Places:
    """Places in the flat logits of a batch, each once, and an amount for each."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.amounts: list[float] = []

    def add(self, start: int, token_ids: Iterable[int], amounts: Iterable[float]) -> None:
        self.indices += [start + token_id for token_id in token_ids]
        self.amounts += amounts

    def tensors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.indices, device=x.device), torch.tensor(self.amounts, dtype=x.dtype, device=x.device)


def _edited(x: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Steps 2 to 6 on x [R, vocab], in place. Only the tokens concerned are touched, by their place in the flat x."""
    flat = x.view(-1)
    biased, repeated, penalised = _Places(), _Places(), _Places()
    stops: list[int] = []
    for start, row in zip(range(0, flat.shape[0], x.shape[1]), rows, strict=True):
        params = row.params
        biased.add(start, params.logit_bias.keys(), params.logit_bias.values())
        if params.repetition_penalty != 1.0:
            seen = set(row.prompt_ids).union(row.output_ids)
            repeated.add(start, seen, [params.repetition_penalty] * len(seen))
        if params.frequency_penalty or params.presence_penalty:
            counts = Counter(row.output_ids)
            amounts = [params.frequency_penalty * count + params.presence_penalty for count in counts.values()]
            penalised.add(start, counts.keys(), amounts)
        if row.token_index < params.min_tokens:
            stops += [start + token_id for token_id in params.stop_token_ids]
    if biased.indices:
        index, bias = biased.tensors(x)
        flat[index] += bias
    if repeated.indices:
        index, penalty = repeated.tensors(x)
        values = flat[index]
        flat[index] = torch.where(values < 0, values * penalty, values / penalty)
    if penalised.indices:
        index, penalty = penalised.tensors(x)
        flat[index] -= penalty
    if stops:
        # The smallest number and not -inf: where a grammar allows nothing but a stop token, it is still drawn.
        flat[torch.tensor(stops, device=x.device)] = torch.finfo(x.dtype).min
    for number, row in enumerate(rows):
        if row.allowed is not None:
            _apply_mask(x[number], row.allowed)
    return x


def _mask_table() -> Tensor:
    """For each byte of a bitmask, what its eight bits add to eight logits: 0 where set, else -inf. [256, 8]."""
    bits = (torch.arange(256).unsqueeze(1) >> torch.arange(8)) & 1
    return torch.where(bits.bool(), 0.0, float("-inf"))


_MASK_TABLE = _mask_table()


def _apply_mask(x: Tensor, allowed: Tensor) -> None:
    """Masks x [vocab] by a bitmask, in place. Tokens past the mask's end are not allowed."""
    added = _MASK_TABLE.to(x.device)[allowed.to(x.device).view(torch.uint8).int()].view(-1)
    x[added.shape[0] :] = float("-inf")
    x[: added.shape[0]] += added[: x.shape[0]]


def _score(x: Tensor, targets: Sequence[int], top: int) -> list[TokenLogprobs]:
    peak = x.amax(-1, keepdim=True)
    check_finite(peak)
    normaliser = peak + block_sums(weights(x, peak)).sum(-1, keepdim=True, dtype=torch.float64).log()
    logprobs = (x.gather(1, torch.tensor(targets, device=x.device).unsqueeze(1)) - normaliser).squeeze(1).tolist()
    if not top:
        return [TokenLogprobs(logprob) for logprob in logprobs]
    values, ids = largest(x, top)
    likeliest = zip(ids.tolist(), (values - normaliser).tolist(), strict=True)
    return [
        TokenLogprobs(logprob, tuple(sorted(zip(*pair, strict=True), key=lambda entry: (-entry[1], entry[0]))))
        for logprob, pair in zip(logprobs, likeliest, strict=True)
    ]
