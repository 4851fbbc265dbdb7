"""Frozen layers whose weights stay in ggml's blocks, as QLoRA trains over (https://arxiv.org/abs/2305.14314).

Weights are unfolded where they are used, one layer at a time, in forward and again in backward: none outlives its
product. They are not parameters, so that they never train, and no optimiser or checkpoint sees them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fireside.kernels.linear import input_gradient, linear
from fireside.models.quantization import QuantizedTensor


class QuantizedLinear(nn.Module):
    """x W^T + bias, with gradients for x alone. As an output head, its `weight` is made for each use."""

    def __init__(self, stored: QuantizedTensor) -> None:
        super().__init__()
        self.stored = stored
        self.out_features, self.in_features = stored.shape
        self.register_parameter("bias", None)

    @property
    def weight(self) -> Tensor:
        """[out_features, in_features], made anew at each call, in the dtype that products are made in."""
        return self.stored.dequantize(_product_dtype(self.stored))

    def forward(self, input: Tensor) -> Tensor:
        input = input.to(_product_dtype(self.stored))
        out: Tensor = _Product.apply(input, self.bias, self.stored)  # type: ignore[no-untyped-call]
        return out


class QuantizedEmbedding(nn.Module):
    """Rows of the matrix, float32, by token id. As a tied output head, its `weight` is made for each use."""

    def __init__(self, stored: QuantizedTensor) -> None:
        super().__init__()
        self.stored = stored

    @property
    def weight(self) -> Tensor:
        """[rows, columns], made anew at each call, in the dtype that products are made in."""
        return self.stored.dequantize(_product_dtype(self.stored))

    def forward(self, input: Tensor) -> Tensor:
        return self.stored.rows(input)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, bias: Tensor | None, stored: QuantizedTensor) -> Tensor:
        ctx.stored, ctx.dtype = stored, input.dtype
        return linear(input, stored.dequantize(input.dtype), None if bias is None else bias.to(input.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        rows = input_gradient(upstream.flatten(0, -2), ctx.stored.dequantize(ctx.dtype))
        return rows.view(*upstream.shape[:-1], -1), None, None


def _product_dtype(stored: QuantizedTensor) -> torch.dtype:
    device = stored.data.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
