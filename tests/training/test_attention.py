"""Attention of packed rows in bfloat16 on a processor, against PyTorch's in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fireside.training import attention
from fireside.training.attention import RowAttention

B, T, H, K, D = 3, 40, 4, 2, 16


def heads() -> list[Tensor]:
    """Queries, keys, values and what comes back: large enough that eight bits of a score would show."""
    torch.manual_seed(0)
    shapes = [(B, T, H, D), (B, T, K, D), (B, T, K, D), (B, T, H, D)]
    return [(4 * torch.randn(shape)).bfloat16() for shape in shapes]


def gradients(attend: RowAttention, inputs: list[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    out = attend(0, *leaves)
    return out, *torch.autograd.grad(out, leaves, upstream)


@pytest.mark.parametrize("score_bytes", [4 * T * T, 1 << 20])
@pytest.mark.parametrize("has_documents", [False, True])
@pytest.mark.parametrize("window", [None, 7])
def test_matrices_of_scores_are_as_precise_as_pytorchs_kernel(
    monkeypatch: pytest.MonkeyPatch, score_bytes: int, has_documents: bool, window: int | None
) -> None:
    monkeypatch.setattr(attention, "SCORE_BYTES", score_bytes)
    *inputs, upstream = heads()
    documents = torch.arange(T).expand(B, -1) // torch.tensor([[5], [13], [100]]) if has_documents else None
    attend = RowAttention(T, torch.device("cpu"), window, documents)
    exact = gradients(attend, [tensor.float() for tensor in inputs], upstream.float())
    ours = gradients(attend, inputs, upstream)
    monkeypatch.setattr(attention, "LONGEST_DENSE", 0)
    theirs = gradients(attend, inputs, upstream)
    assert not torch.equal(ours[0], theirs[0])  # two ways indeed
    for name, e, o, t in zip(("out", "query", "key", "value"), exact, ours, theirs, strict=True):
        assert _error(o, e) < max(1.3 * _error(t, e), 0.004), name


def test_scores_keep_sixteen_bits() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(2, 33, 16).bfloat16(), torch.randn(2, 16, 21).bfloat16()
    exact = left.double() @ right.double()
    assert (attention._precise_product(left, right) - exact).abs().max() < 2**-15 * exact.abs().max()
    assert (torch.bmm(left, right) - exact).abs().max() > 2**-11 * exact.abs().max()


def test_float32_is_pytorchs_attention() -> None:
    *inputs, _ = (tensor.float() for tensor in heads())
    query, key, value = (tensor.transpose(1, 2) for tensor in inputs)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(RowAttention(T, torch.device("cpu"))(0, *inputs), expected)


def _error(found: Tensor, exact: Tensor) -> float:
    return ((found.float() - exact).norm() / exact.norm()).item()
