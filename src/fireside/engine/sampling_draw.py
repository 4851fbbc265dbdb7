"""From a row of logits and one uniform number to a token: greedy, plain, and filtered by top-k, top-p and min-p.

A draw inverts the cumulative distribution of its row, in the order of token ids. It depends on nothing but its row:
every reduction runs over the row in an order that the size of the vocabulary fixes, and never the batch.

A vocabulary is not sorted where that can be avoided. The k largest of a row lie within the k blocks with the largest
maxima, so one pass over the row leads to a few thousand candidates, and from these to the k largest. Only where more
tokens than that are kept is the cut-off searched in the whole row.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import neg
from struct import Struct

import torch
from torch import Tensor
from torch.nn import functional

from fireside.errors import FiresideError

BLOCK = 64  # tokens whose weights are summed, and whose maximum is taken, together
DEPTHS = (128, 2048)  # how many of the largest logits are looked at, first and then, before the whole vocabulary

_NEG_INF = float("-inf")
_FLOAT, _FLOAT_BITS = Struct("<f"), Struct("<I")
_BELOW_ONE = 1.0 - 2.0**-52
_MIN_TEMPERATURE = 1e-30  # so that its inverse is finite; as good as greedy


class LogitsError(FiresideError):
    """The model produced logits that no token can be drawn from (NaN, infinite, or everything masked)."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One row's draw: a number in [0, 1), and how the distribution is shaped. `top_k` 0: no limit."""

    uniform: float
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def inverse_temperature(self) -> float:
        return 1.0 / max(self.temperature, _MIN_TEMPERATURE)


def check_finite(peak: Tensor) -> None:
    """Refuses rows by their largest logits: NaN and infinity anywhere in a row end up there."""
    if not math.isfinite(peak.sum().item()):
        raise LogitsError(
            "the model's logits hold NaN or infinity, or every token was masked: "
            "the weights may be damaged, or the dtype too narrow for this model"
        )


def in_blocks(x: Tensor, padding: float = _NEG_INF) -> Tensor:
    """[R, vocab] as [R, blocks, BLOCK], the last block filled up with `padding`. A view where nothing is missing."""
    missing = -x.shape[1] % BLOCK
    return (functional.pad(x, (0, missing), value=padding) if missing else x).view(x.shape[0], -1, BLOCK)


def take_block(blocks: Tensor, index: Tensor) -> Tensor:
    """Of blocks [R, N, BLOCK] the one at `index` [R, 1] in each row: [R, BLOCK]."""
    return blocks.gather(1, index.unsqueeze(2).expand(-1, -1, BLOCK)).squeeze(1)


def greedy(x: Tensor) -> Tensor:
    """The id of each row's largest logit, the lowest id among equals: [R, vocab] to [R].

    Over blocks, because a maximum is found several times faster than its place.
    """
    blocks = in_blocks(x)
    peak, block = blocks.amax(-1).max(-1, keepdim=True)
    check_finite(peak)
    return block.squeeze(1) * BLOCK + take_block(blocks, block).argmax(-1)


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of x [R, vocab], descending, and their ids: both [R, count].

    Equal values come in no particular order, and it is open which of them are left out.
    """
    count = min(count, x.shape[1])
    blocks = in_blocks(x)
    rows, num_blocks, _ = blocks.shape
    if num_blocks <= count:
        return torch.topk(x, count)
    nearest = blocks.amax(-1).topk(count, sorted=False).indices
    flat = (
        nearest + torch.arange(0, rows * num_blocks, num_blocks, device=x.device).unsqueeze(1) if rows > 1 else nearest
    )
    candidates = blocks.reshape(-1, BLOCK).index_select(0, flat.view(-1)).view(rows, -1)
    values, places = candidates.topk(count)
    return values, nearest.gather(1, places // BLOCK).mul_(BLOCK).add_(places % BLOCK)


def weights(x: Tensor, peak: Tensor, inverse_temperature: Tensor | float = 1.0) -> Tensor:
    """exp((x - peak) / temperature) in float32: probabilities without their common divisor. The peak's is 1."""
    return x.sub(peak).mul_(inverse_temperature).exp_()


def block_sums(w: Tensor) -> Tensor:
    """Sums of each block of w [R, vocab], in float32: [R, blocks]."""
    return in_blocks(w, padding=0.0).sum(-1)


def draw_plain(x: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Draws from softmax(x / temperature), x [R, vocab]; ids [R]. First the block, then the token in it."""
    peak = x.amax(-1, keepdim=True)
    check_finite(peak)
    w = in_blocks(weights(x, peak, _column([draw.inverse_temperature for draw in draws], x)), padding=0.0)
    sums = w.sum(-1)
    cumulative = sums.cumsum(-1, dtype=torch.float64)
    target = cumulative[:, -1:] * torch.tensor([[draw.uniform] for draw in draws], dtype=torch.float64, device=x.device)
    # The first place that exceeds the target: never one of weight 0.
    block = torch.searchsorted(cumulative, target, right=True)
    within = take_block(w, block).cumsum(-1, dtype=torch.float64)
    target -= (cumulative - sums).gather(1, block)
    # The block's sum in float32 and the same in float64 differ by rounding: hold the target inside the block.
    target = torch.minimum(target, within[:, -1:] * _BELOW_ONE).clamp_(min=0.0)
    return (block * BLOCK + torch.searchsorted(within, target, right=True)).squeeze(1)


def draw_filtered(x: Tensor, draws: Sequence[Draw], depths: Sequence[int] = DEPTHS) -> list[int]:
    """Draws from softmax(x / temperature) cut by top-k, then top-p, then min-p, x [R, vocab]; R ids.

    As in transformers: top-k keeps the k largest logits; top-p keeps the fewest tokens, the likeliest first, whose
    share of what top-k left reaches `top_p`; min-p keeps those at least `min_p` times as probable as the likeliest.
    What equals the last one kept is kept too.

    depths: how many of the largest logits are looked at. They change nothing but the time it takes.
    """
    peak = x.amax(-1, keepdim=True)
    check_finite(peak)
    inverse_temperature = _column([draw.inverse_temperature for draw in draws], x)
    totals = [math.nan] * len(draws)  # sums of whole rows of weights, where needed
    if any(draw.top_p < 1.0 and not draw.top_k for draw in draws):
        totals = _mass(weights(x, peak, inverse_temperature))
    values, ids = largest(x, depths[0])
    known = zip(values.tolist(), weights(values, peak, inverse_temperature).tolist(), ids.tolist(), strict=True)
    drawn: list[int] = []
    for row, (lists, total, draw) in enumerate(zip(known, totals, draws, strict=True)):
        token_id = _draw_from_largest(*lists, total, draw, everything=depths[0] >= x.shape[1])
        if token_id is None:
            one = slice(row, row + 1)
            if len(depths) > 1:
                (token_id,) = draw_filtered(x[one], [draw], depths[1:])
            else:
                token_id = _draw_from_all(x[one], weights(x[one], peak[one], inverse_temperature[one]), draw)
        drawn.append(token_id)
    return drawn


def _draw_from_largest(
    values: list[float], weights: list[float], ids: list[int], total: float, draw: Draw, *, everything: bool
) -> int | None:
    """Draws from one row, of which the largest logits, their weights and ids are known; None if they are too few.

    total: the sum of the weights of the whole row, if top-p is to be applied to it.
    everything: the whole row is known.
    """
    if weights[-1] == 0.0:  # and so has all that is not known: none of it can be drawn
        everything = True
        weights = weights[: _count_at_least(weights, math.ulp(0.0))]
    kept = len(weights)
    if draw.top_k:
        kept = min(kept, _count_at_least(values, values[min(draw.top_k, kept) - 1]))
        if kept == len(weights) and not everything:
            return None
    if draw.top_p < 1.0:
        masses = list(accumulate(weights[:kept]))
        needed = draw.top_p * (masses[-1] if draw.top_k else total)
        kept = min(kept, _count_at_least(weights, weights[min(bisect_left(masses, needed), kept - 1)]))
    if draw.min_p > 0.0:
        kept = min(kept, max(1, _count_at_least(weights, draw.min_p)))
    if kept == len(weights) and not everything:
        return None  # more might be kept, or equal the last one that is
    kept_ids, kept_weights = zip(*sorted(zip(ids[:kept], weights[:kept], strict=True)), strict=True)
    cumulative = list(accumulate(kept_weights))
    return int(kept_ids[bisect_right(cumulative, draw.uniform * cumulative[-1])])


def _count_at_least(descending: list[float], least: float) -> int:
    return bisect_right(descending, -least, key=neg)


def _draw_from_all(x: Tensor, w: Tensor, draw: Draw) -> int:
    """The same draw from one row of logits x and weights w, both [1, vocab], without knowing their order."""
    if draw.top_k:
        w = w * (x >= x.topk(draw.top_k).values[:, -1:])
    if draw.top_p < 1.0:
        w = functional.threshold(w, _cut_to_mass(w, draw.top_p * _mass(w)[0]), 0.0)
    if draw.min_p > 0.0:
        w = w * (w >= draw.min_p)
    cumulative = w.cumsum(-1, dtype=torch.float64)
    return int(torch.searchsorted(cumulative, draw.uniform * cumulative[:, -1:], right=True).item())


def _mass(w: Tensor) -> list[float]:
    """The sum of each row of weights [R, vocab]."""
    return [float(total) for total in block_sums(w).sum(-1, dtype=torch.float64).tolist()]


def _cut_to_mass(w: Tensor, needed: float) -> float:
    """The largest t for which the weights [1, vocab] above t sum to `needed`, by bisection: a sort takes longer.

    Positive floats are ordered as their bit patterns are, so that about thirty steps find t exactly.
    """
    low, high = 0, _FLOAT_BITS.unpack(_FLOAT.pack(1.0))[0]  # no weight is above 1
    while high - low > 1:
        middle = (low + high) // 2
        if _mass(functional.threshold(w, _float_of_bits(middle), 0.0))[0] >= needed:
            low = middle
        else:
            high = middle
    return _float_of_bits(low)


def _float_of_bits(bits: int) -> float:
    return float(_FLOAT.unpack(_FLOAT_BITS.pack(bits))[0])


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(1)
