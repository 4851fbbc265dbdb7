"""A linear layer and its gradients on a CPU: in float32 by oneDNN, where PyTorch would ask MKL."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_MIN_ROWS = 32  # fewer are bound by reading the weights, and getting oneDNN ready costs more than it brings


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` for x [..., in_features], weight [out_features, in_features], bias [out_features].

    PyTorch gives float32 products on x86 to MKL, whose AVX-512 kernels are for Intel's processors alone: on AMD's,
    oneDNN is twice as fast. The choice rests on the build and the shapes, never on a measurement, so that a run that is
    gone on with makes the same roundings.
    """
    if _takes_onednn(x, weight):
        product: Tensor = _OneDnnLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return product
    return F.linear(x, weight, bias)


def input_gradient(upstream: Tensor, weight: Tensor) -> Tensor:
    """Of `linear` towards x: [N, out_features] and [out_features, in_features] to [N, in_features]."""
    return _onednn(upstream, weight.t()) if _takes_onednn(upstream, weight) else upstream @ weight


def weight_gradient(upstream: Tensor, x: Tensor) -> Tensor:
    """Of `linear` towards the weight: [N, out_features] and [N, in_features] to [out_features, in_features]."""
    if not _takes_onednn(upstream, x):
        return upstream.t() @ x
    if upstream.shape[1] > x.shape[1]:  # oneDNN likes the wider one as its columns
        return _onednn(x.t(), upstream.t()).t()
    return _onednn(upstream.t(), x.t())


def _takes_onednn(x: Tensor, other: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == other.dtype == torch.float32
        and x.numel() >= _MIN_ROWS * x.shape[-1] > 0
        and torch._C.has_mkl
        and torch._C._has_mkldnn
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # whose own products it would hide
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = upstream.flatten(0, -2)
        return (
            input_gradient(rows, weight).view_as(x) if wants_x else None,
            weight_gradient(rows, x.flatten(0, -2)) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )
