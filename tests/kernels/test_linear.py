"""Our linear layer and its gradients against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fireside.kernels import linear as kernel
from fireside.kernels.linear import linear

CLOSE = {"rtol": 1e-5, "atol": 1e-4}  # another order of the sums
sizes = st.integers(1, 80)


@settings(deadline=None, max_examples=60)
@given(batch=st.integers(1, 3), rows=sizes, inner=sizes, outer=sizes, has_bias=st.booleans(), seed=st.integers(0, 99))
def test_values_and_gradients_are_those_of_pytorch(
    batch: int, rows: int, inner: int, outer: int, has_bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    inputs = [torch.randn(batch, rows, inner), torch.randn(outer, inner), *([torch.randn(outer)] if has_bias else [])]
    upstream = torch.randn(batch, outer, rows).transpose(1, 2)  # as it comes out of attention: not contiguous

    def run(product: object) -> tuple[Tensor, ...]:
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        out = product(*leaves)  # type: ignore[operator]
        return out, *torch.autograd.grad(out, leaves, upstream)

    for ours, theirs in zip(run(linear), run(F.linear), strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.skipif(not torch._C.has_mkl, reason="where PyTorch has no MKL, its own product is taken")
def test_onednn_is_asked_for_many_float32_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.Size] = []
    original = kernel._onednn

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        asked.append(x.shape)
        return original(x, weight, bias)

    monkeypatch.setattr(kernel, "_onednn", watched)
    x, weight = torch.randn(64, 16), torch.randn(8, 16, requires_grad=True)
    linear(x, weight).sum().backward()
    assert len(asked) == 2  # nobody wants the gradient of x
    linear(x[:8], weight)
    linear(x.bfloat16(), weight.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    assert len(asked) == 2
