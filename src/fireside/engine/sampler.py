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

import torch
from torch import Tensor

from fireside.engine.messages import SamplingParams, TokenLogprobs
from fireside.engine.sampling_draw import (
    Candidates,
    Filters,
    check_finite,
    draw_filtered,
    draw_plain,
    greedy,
    in_blocks,
    weights,
)
from fireside.engine.sampling_random import uniform

# Rows worked on at once. On a CPU as many as stay in its second-level cache together with their temporaries; an
# accelerator wants them all.
_CPU_ROWS = 8


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
        """One token per row of logits [B, vocab] (float32; left as they are). Raises `LogitsError`."""
        if logits.shape[0] != len(rows):
            raise ValueError(f"{logits.shape[0]} rows of logits for {len(rows)} requests")
        drawn = [0] * len(rows)
        vocab_size = logits.shape[1]
        for kind in (_is_greedy, _is_plain, _is_filtered):
            indices = [index for index, row in enumerate(rows) if kind(row.params, vocab_size)]
            for chunk in _chunks(indices, logits):
                part = [rows[index] for index in chunk]
                x = logits if len(chunk) == len(rows) else logits[chunk]
                if any(_is_edited(row) for row in part):
                    x = _edited(x.clone() if x is logits else x, part)
                ids = greedy(x) if kind is _is_greedy else _drawn(x, part, filtered=kind is _is_filtered)
                for index, token_id in zip(chunk, ids.squeeze(1).tolist(), strict=True):
                    drawn[index] = token_id
        scores = self._scores_of_drawn(logits, rows, drawn)
        return [SampledToken(token_id, scores.get(index)) for index, token_id in enumerate(drawn)]

    @torch.inference_mode()
    def score(self, logits: Tensor, targets: Sequence[int], top: int) -> list[TokenLogprobs]:
        """The log-probabilities of given tokens under logits [L, vocab], each with the `top` likeliest at its place."""
        if logits.shape[0] != len(targets):
            raise ValueError(f"{logits.shape[0]} rows of logits for {len(targets)} tokens")
        scored: list[TokenLogprobs] = []
        for chunk in _chunks(range(len(targets)), logits):
            scored += _score(logits[chunk[0] : chunk[-1] + 1], [targets[index] for index in chunk], top)
        return scored

    def _scores_of_drawn(
        self, logits: Tensor, rows: Sequence[SamplingRow], drawn: Sequence[int]
    ) -> dict[int, TokenLogprobs]:
        scores: dict[int, TokenLogprobs] = {}
        for top in {row.params.logprobs for row in rows} - {None}:
            assert top is not None
            indices = [index for index, row in enumerate(rows) if row.params.logprobs == top]
            x = logits if len(indices) == len(rows) else logits[indices]
            scores.update(zip(indices, self.score(x, [drawn[index] for index in indices], top), strict=True))
        return scores


def _is_greedy(params: SamplingParams, vocab_size: int) -> bool:
    return params.temperature <= 0.0 or params.top_k == 1


def _is_filtered(params: SamplingParams, vocab_size: int) -> bool:
    cuts = 0 < params.top_k < vocab_size or params.top_p < 1.0 or params.min_p > 0.0
    return cuts and not _is_greedy(params, vocab_size)


def _is_plain(params: SamplingParams, vocab_size: int) -> bool:
    return not _is_greedy(params, vocab_size) and not _is_filtered(params, vocab_size)


def _is_edited(row: SamplingRow) -> bool:
    params = row.params
    return bool(
        row.allowed is not None
        or params.logit_bias
        or params.repetition_penalty != 1.0
        or ((params.frequency_penalty or params.presence_penalty) and row.output_ids)
        or (row.token_index < params.min_tokens and params.stop_token_ids)
    )


def _chunks(indices: Sequence[int], logits: Tensor) -> Iterable[Sequence[int]]:
    size = _CPU_ROWS if logits.device.type == "cpu" else max(len(indices), 1)
    return (indices[start : start + size] for start in range(0, len(indices), size))


def _drawn(x: Tensor, rows: Sequence[SamplingRow], filtered: bool) -> Tensor:
    vocab_size = x.shape[1]
    table = torch.tensor(
        [
            (
                uniform(row.params.seed, row.token_index),
                row.params.temperature,
                row.params.top_p,
                row.params.min_p,
                row.params.top_k if 0 < row.params.top_k < vocab_size else vocab_size,
            )
            for row in rows
        ],
        dtype=torch.float64,
        device=x.device,
    )
    number, temperature, top_p, min_p, top_k = (table[:, column : column + 1] for column in range(5))
    filters = Filters(number, temperature, top_p, min_p, top_k.long())
    return draw_filtered(x, filters) if filtered else draw_plain(x, filters)


def _edited(x: Tensor, rows: Sequence[SamplingRow]) -> Tensor:
    """Steps 2 to 6 on x [R, vocab], in place. Only the tokens concerned are touched, by their place in the flat x."""
    vocab_size = x.shape[1]
    flat = x.view(-1)
    biased: dict[int, float] = {}
    repeated: dict[int, float] = {}
    penalised: dict[int, float] = {}
    stops: list[int] = []
    for number, row in enumerate(rows):
        params, start = row.params, number * vocab_size
        for token_id, bias in params.logit_bias.items():
            biased[start + token_id] = bias
        if params.repetition_penalty != 1.0:
            seen = set(row.prompt_ids).union(row.output_ids)
            repeated.update(dict.fromkeys((start + token_id for token_id in seen), params.repetition_penalty))
        if params.frequency_penalty or params.presence_penalty:
            for token_id, count in Counter(row.output_ids).items():
                penalised[start + token_id] = params.frequency_penalty * count + params.presence_penalty
        if row.token_index < params.min_tokens:
            stops += [start + token_id for token_id in params.stop_token_ids]

    def places(values: Iterable[int]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.int64, device=x.device)

    def amounts(values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=x.dtype, device=x.device)

    if biased:
        index = places(biased)
        flat[index] += amounts(biased.values())
    if repeated:
        index, penalty = places(repeated), amounts(repeated.values())
        values = flat[index]
        flat[index] = torch.where(values < 0, values * penalty, values / penalty)
    if penalised:
        index = places(penalised)
        flat[index] -= amounts(penalised.values())
    if stops:
        # The smallest number and not -inf: where a grammar allows nothing but a stop token, it is still drawn.
        flat[places(stops)] = torch.finfo(x.dtype).min
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
    total = in_blocks(weights(x, peak, torch.ones_like(peak)), padding=0.0).sum(-1).sum(-1, True, dtype=torch.float64)
    normaliser = peak + total.log()
    chosen = x.gather(1, torch.tensor(targets, device=x.device).unsqueeze(1)) - normaliser
    if not top:
        return [TokenLogprobs(logprob) for logprob in chosen.squeeze(1).tolist()]
    near = Candidates.nearest(x, max(top, 1))
    likeliest = near.logits.topk(min(top, x.shape[1]))
    ids = near.token_ids(likeliest.indices).tolist()
    logprobs = (likeliest.values - normaliser).tolist()
    return [
        TokenLogprobs(logprob, tuple(sorted(zip(*pair, strict=True), key=lambda entry: (-entry[1], entry[0]))))
        for logprob, *pair in zip(chosen.squeeze(1).tolist(), ids, logprobs, strict=True)
    ]
