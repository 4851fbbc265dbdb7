"""From a row of logits and one uniform number to a token: greedy, plain, and filtered by top-k, top-p and min-p.

Two rules make a draw depend on its own row and nothing else. Every reduction runs over blocks of `BLOCK` tokens of
one row in an order fixed by the vocabulary's size, never by the batch. And the draw inverts the cumulative
distribution in the order of token ids, so it does not matter by which path the kept tokens were found.

A vocabulary is never sorted where that can be avoided. The k largest of a row lie within the k blocks with the
largest maxima, so the maxima of all blocks (one pass) lead to a few thousand candidates, and only these are
looked at further. Rows whose kept tokens reach beyond the candidates are done again in full, with the same result
by definition: the same cut-off, and the same sums in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fireside.errors import FiresideError

BLOCK = 64  # tokens whose weights are summed together
NEAR = 128  # blocks that hold the candidates, and how many of the largest logits are known from them
DEEP = 2048  # how many are looked at next, before a full sort

_NEG_INF = float("-inf")


class LogitsError(FiresideError):
    """The model produced logits that no token can be drawn from (NaN, infinite, or everything masked)."""


@dataclass(frozen=True)
class Filters:
    """The parameters of R drawn rows, all [R, 1] and float64 but `top_k` (int64; the vocabulary's size: no limit).

    `uniform` lies in [0, 1), `temperature` is positive.
    """

    uniform: Tensor
    temperature: Tensor
    top_p: Tensor
    min_p: Tensor
    top_k: Tensor

    def rows(self, index: int) -> Filters:
        """The parameters of one row, still [1, 1]."""
        keep = slice(index, index + 1)
        return Filters(self.uniform[keep], self.temperature[keep], self.top_p[keep], self.min_p[keep], self.top_k[keep])


def in_blocks(x: Tensor, padding: float = _NEG_INF) -> Tensor:
    """[R, vocab] as [R, blocks, BLOCK], the last block filled up with `padding`. A view where nothing is missing."""
    missing = -x.shape[1] % BLOCK
    return (functional.pad(x, (0, missing), value=padding) if missing else x).view(x.shape[0], -1, BLOCK)


def take_blocks(blocks: Tensor, index: Tensor) -> Tensor:
    """Blocks [R, N, BLOCK] at `index` [R, M], laid end to end: [R, M * BLOCK]."""
    rows, count, _ = blocks.shape
    flat = index + torch.arange(0, rows * count, count, device=index.device).unsqueeze(1)
    return blocks.reshape(-1, BLOCK).index_select(0, flat.flatten()).view(rows, -1)


@dataclass(frozen=True)
class Candidates:
    """The tokens of the blocks with the largest maxima, in order of id. No other token's logit exceeds `bound`."""

    logits: Tensor  # [R, C]
    blocks: Tensor  # [R, C / BLOCK], ascending
    bound: Tensor  # [R, 1]; -inf where these are all there are

    @classmethod
    def nearest(cls, x: Tensor, count: int = NEAR) -> Candidates:
        """Of x [R, vocab]. The `count` largest logits of each row are among them."""
        blocks = in_blocks(x)
        maxima = blocks.amax(-1)
        if maxima.shape[1] <= count:
            index = torch.arange(maxima.shape[1], device=x.device).expand_as(maxima)
            return cls(blocks.flatten(1), index, torch.full_like(x[:, :1], _NEG_INF))
        top = maxima.topk(count)
        index = top.indices.sort().values
        return cls(take_blocks(blocks, index), index, top.values[:, -1:])

    def token_ids(self, positions: Tensor) -> Tensor:
        """From positions [R, n] among the candidates to ids of tokens [R, n]."""
        return self.blocks.gather(1, positions // BLOCK) * BLOCK + positions % BLOCK


def check_finite(peak: Tensor) -> None:
    """Refuses rows by their largest logits: NaN and infinity anywhere in a row end up there."""
    if not peak.isfinite().all().item():
        raise LogitsError(
            "the model's logits hold NaN or infinity, or every token was masked: "
            "the weights may be damaged, or the dtype too narrow for this model"
        )


def greedy(x: Tensor) -> Tensor:
    """The id of each row's largest logit, the lowest id among equals: [R, vocab] to [R, 1].

    Over blocks, because a maximum is found several times faster than its place.
    """
    blocks = in_blocks(x)
    peak, block = blocks.amax(-1).max(-1, keepdim=True)
    check_finite(peak)
    return block * BLOCK + take_blocks(blocks, block).argmax(-1, keepdim=True)


def weights(x: Tensor, peak: Tensor, temperature: Tensor) -> Tensor:
    """exp((x - peak) / temperature) in float32: probabilities without their common divisor. The peak's is 1."""
    return x.sub(peak).div_(temperature.to(x.dtype)).exp_()


def invert(cumulative: Tensor, target: Tensor) -> Tensor:
    """The first place in each row of `cumulative` [R, n] that exceeds `target` [R, 1]: never one of weight 0."""
    return torch.searchsorted(cumulative, target, right=True)


def draw_plain(x: Tensor, filters: Filters) -> Tensor:
    """Draws from softmax(x / temperature), x [R, vocab]; ids [R, 1]. First the block, then the token in it."""
    peak = x.amax(-1, keepdim=True)
    check_finite(peak)
    w = in_blocks(weights(x, peak, filters.temperature), padding=0.0)
    sums = w.sum(-1)
    cumulative = sums.cumsum(-1, dtype=torch.float64)
    target = filters.uniform * cumulative[:, -1:]
    block = invert(cumulative, target)
    within = take_blocks(w, block).cumsum(-1, dtype=torch.float64)
    target = target - (cumulative.gather(1, block) - sums.gather(1, block))
    # The block's sum in float32 and the same in float64 differ by rounding: hold the target inside the block.
    end = within[:, -1:]
    target = torch.minimum(target.clamp_(min=0.0), torch.nextafter(end, torch.zeros_like(end)))
    return block * BLOCK + invert(within, target)


def draw_filtered(x: Tensor, filters: Filters) -> Tensor:
    """Draws from softmax(x / temperature) cut by top-k, then top-p, then min-p, x [R, vocab]; ids [R, 1].

    As in transformers: top-k keeps the k largest and what equals the last of them; top-p keeps the fewest
    tokens whose share of what top-k left reaches `top_p`, and what equals the last of them; min-p keeps
    those at least `min_p` times as probable as the likeliest.
    """
    peak = x.amax(-1, keepdim=True)
    check_finite(peak)
    total = in_blocks(weights(x, peak, filters.temperature), padding=0.0).sum(-1).sum(-1, True, dtype=torch.float64)
    near = Candidates.nearest(x)
    largest = near.logits.topk(min(NEAR, x.shape[1])).values
    cut, known = _cut_off(largest, peak, total, x.shape[1], filters)
    ids = near.token_ids(_draw_from(near.logits, cut, peak, filters))
    complete = known & ((cut > near.bound) | near.bound.isneginf())
    for row, done in enumerate(complete.squeeze(1).tolist()):
        if not done:
            one = slice(row, row + 1)
            ids[one] = draw_in_full(x[one], filters.rows(row), peak[one], total[one])
    return ids


def draw_in_full(x: Tensor, filters: Filters, peak: Tensor, total: Tensor) -> Tensor:
    """The same draw for one row [1, vocab], over the whole vocabulary."""
    vocab_size = x.shape[1]
    for depth in (DEEP, vocab_size):
        cut, known = _cut_off(x.topk(min(depth, vocab_size)).values, peak, total, vocab_size, filters)
        if depth >= vocab_size or known.item():
            break
    return _draw_from(x, cut, peak, filters)


def _draw_from(x: Tensor, cut: Tensor, peak: Tensor, filters: Filters) -> Tensor:
    """Draws among the tokens with x >= cut, in the order given. Weights of 0 in between leave the sums as they are."""
    cumulative = weights(x, peak, filters.temperature).mul_(x >= cut).cumsum(-1, dtype=torch.float64)
    return invert(cumulative, filters.uniform * cumulative[:, -1:])


def _cut_off(largest: Tensor, peak: Tensor, total: Tensor, vocab_size: int, filters: Filters) -> tuple[Tensor, Tensor]:
    """The smallest logit that each row keeps, and whether `largest` reaches deep enough to know it: both [R, 1].

    largest [R, n]: each row's n largest logits, descending. total [R, 1]: the sum of its weights.
    """
    everything = largest.shape[1] >= vocab_size
    deepest = largest[:, -1:]
    limited = filters.top_k < vocab_size
    kth = largest.gather(1, (filters.top_k - 1).clamp(max=largest.shape[1] - 1))
    top_k_cut = torch.where(limited, kth, _NEG_INF)
    # Past `deepest` there may be more tokens that equal it, and these would be kept as well.
    top_k_known = ~limited | (kth > deepest) | everything

    mass = weights(largest, peak, filters.temperature).mul_(largest >= top_k_cut).cumsum(-1, dtype=torch.float64)
    needed = filters.top_p * torch.where(limited, mass[:, -1:], total)
    last = (mass < needed).sum(-1, keepdim=True)
    top_p_cut = torch.where(filters.top_p < 1.0, largest.gather(1, last.clamp(max=largest.shape[1] - 1)), _NEG_INF)
    top_p_known = (filters.top_p >= 1.0) | (last < largest.shape[1]) | everything

    min_p_cut = (peak + filters.temperature * filters.min_p.log()).to(largest.dtype)
    cut = torch.maximum(torch.maximum(top_k_cut, top_p_cut), min_p_cut)
    return cut, top_k_known & (top_p_known | (min_p_cut > deepest))
