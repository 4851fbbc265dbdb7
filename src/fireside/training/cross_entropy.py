"""Cross-entropy over a large vocabulary without its logits: a chunk of rows at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fireside.data.batch import IGNORED
from fireside.kernels.linear import input_gradient, linear, weight_gradient

# Of float32 logits that exist at once: what fits a processor's caches is a tenth faster than four times as much, and a
# GPU wants large products.
CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}


def summed_cross_entropy(hidden: Tensor, head: Tensor, labels: Tensor) -> Tensor:
    """The summed negative log-likelihood, in nats, float32 [].

    hidden [N, hidden_size], head [vocab_size, hidden_size], labels int64 [N], where `IGNORED` takes no loss. Products
    are made in `hidden`'s dtype, sums in float32. While autograd records, gradients are made along with the loss, so
    that backward computes no logits anew (as in Liger Kernel, https://arxiv.org/abs/2410.10989).
    """
    kept = labels != IGNORED
    if not kept.all():  # only what has a target costs anything: in fine-tuning that is the smaller part
        hidden, labels = hidden[kept], labels[kept]
    loss: Tensor = _SummedCrossEntropy.apply(hidden, head, labels, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return loss


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, labels: Tensor, wants_gradients: bool) -> Tensor:
        weights = head.to(hidden.dtype)
        wants_hidden, wants_head = (wants_gradients and needed for needed in ctx.needs_input_grad[:2])
        hidden_gradient = torch.empty_like(hidden) if wants_hidden else None
        head_gradient = torch.zeros_like(head, dtype=torch.float32) if wants_head else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows = max(1, CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"]) // (4 * head.shape[0]))
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, hidden.shape[0], rows):
                chunk, targets = hidden[start : start + rows], labels[start : start + rows]
                log_probabilities = linear(chunk, weights).float().log_softmax(-1)
                total -= log_probabilities.gather(1, targets[:, None]).sum()
                if not (wants_hidden or wants_head):
                    continue
                gradient = log_probabilities.exp_()
                gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), -1.0))
                narrow = gradient.to(hidden.dtype)
                if hidden_gradient is not None:
                    hidden_gradient[start : start + rows] = input_gradient(narrow, weights)
                if head_gradient is not None:
                    head_gradient += weight_gradient(narrow, chunk)
        ctx.save_for_backward(hidden_gradient, head_gradient)
        ctx.head_dtype = head.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_gradient, head_gradient = ctx.saved_tensors
        return (
            None if hidden_gradient is None else (hidden_gradient * upstream).to(hidden_gradient.dtype),
            None if head_gradient is None else (head_gradient * upstream).to(ctx.head_dtype),
            None,
            None,
        )
