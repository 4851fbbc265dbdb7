"""How the tokens of a packed row see each other, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Tokens of a row. Longer ones waste too much on what is masked.
LONGEST_DENSE = 512
# Of float32 scores that exist at once: what fits the caches is faster.
SCORE_BYTES = 2 << 20


class RowAttention:
    """Each token sees itself and those before it in its row, at most `window` of them.

    document_ids: int64 [B, T]; with it, those of its own document only, so that a packed row gives what its documents
    would give in rows of their own.
    """

    def __init__(
        self, length: int, device: torch.device, window: int | None = None, document_ids: Tensor | None = None
    ) -> None:
        index = torch.arange(length, device=device)
        distance = index[:, None] - index
        seen = (distance if window is None else distance.where(distance < window, -1))[None] >= 0
        if document_ids is not None:
            seen = seen & (document_ids[:, :, None] == document_ids[:, None, :])
        self._seen = seen[:, None]  # bool [1 or B, 1, T, T]
        self._is_causal = document_ids is None and (window is None or window >= length)
        self._bias: Tensor | None = None

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if _is_for_dense(query):
            if self._bias is None:
                self._bias = torch.zeros(self._seen.shape).masked_fill_(~self._seen, -math.inf)
            groups = query.shape[1] // key.shape[1]
            if groups > 1:
                key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
            attended: Tensor = _DenseAttention.apply(query, key, value, self._bias)  # type: ignore[no-untyped-call]
        else:
            attended = F.scaled_dot_product_attention(
                query, key, value,
                attn_mask=None if self._is_causal else self._seen, is_causal=self._is_causal, enable_gqa=True,
            )  # fmt: skip
        return attended.transpose(1, 2)


def _is_for_dense(query: Tensor) -> bool:
    """Where a processor multiplies bfloat16 matrices by instructions of its own, PyTorch's kernel makes little of them
    in short rows. What is being compiled is left to the compiler."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.shape[-2] <= LONGEST_DENSE
        and not torch.compiler.is_compiling()
    )


class _DenseAttention(torch.autograd.Function):
    """query, key, value: bfloat16 [B, H, T, D]. bias: float32 [1 or B, 1, T, T], added to the scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (tensor.flatten(0, 1) for tensor in (query, key, value))
        scale = 1 / math.sqrt(q.shape[-1])
        attended, probabilities = torch.empty_like(q), q.new_empty(*q.shape[:2], k.shape[1])
        for part in _parts(q):
            scores = _precise_product(q[part], k[part].transpose(1, 2)).mul_(scale)
            rows = torch.arange(part.start, part.stop) // query.shape[1] if len(bias) > 1 else 0
            scores.add_(bias[rows, 0])
            probabilities[part] = torch.softmax(scores, -1, out=scores)
            torch.bmm(probabilities[part], v[part], out=attended[part])
        ctx.save_for_backward(q, k, v, probabilities)
        return attended.view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, probabilities = ctx.saved_tensors
        heads, upstream = upstream.shape, upstream.flatten(0, 1)
        scale = 1 / math.sqrt(q.shape[-1])
        of_q, of_k, of_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for part in _parts(q):
            weights = probabilities[part]
            towards_weights = _precise_product(upstream[part], v[part].transpose(1, 2))
            towards_scores = torch._softmax_backward_data(towards_weights, weights.float(), -1, torch.float32)
            narrow = towards_scores.mul_(scale).bfloat16()
            torch.bmm(narrow, k[part], out=of_q[part])
            torch.bmm(narrow.transpose(1, 2), q[part], out=of_k[part])
            torch.bmm(weights.transpose(1, 2), upstream[part], out=of_v[part])
        return of_q.view(heads), of_k.view(heads), of_v.view(heads), None


def _parts(heads: Tensor) -> Iterator[slice]:
    """Of [N, T, D], so many at a time that their scores fit the processor's caches."""
    most = max(1, SCORE_BYTES // (4 * heads.shape[1] ** 2))
    for start in range(0, len(heads), most):
        yield slice(start, min(start + most, len(heads)))


def _precise_product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of bfloat16 [N, A, B] and [N, B, C], in float32 to about 16 bits.

    PyTorch rounds products of bfloat16 to bfloat16, eight bits, which is too coarse for the logarithms that scores are.
    What rounding took is a product as well: the same one, added to minus its rounded self before it is rounded.
    """
    rounded = torch.bmm(left, right)
    rest = torch.baddbmm(rounded, left, right, beta=-1)
    return rounded.float().add_(rest)
