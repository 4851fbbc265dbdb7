"""The packed products against PyTorch, for every type of weight."""

from __future__ import annotations

import ctypes
from functools import cache

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fireside.gguf import GGMLType
from fireside.kernels.cpu import packing
from fireside.kernels.cpu.library import load_library
from fireside.kernels.cpu.packing import PackedMatrix, pack_float, pack_quantized
from tests.kernels.native import needs_compiler
from tests.models.gguf_files import pack

pytestmark = needs_compiler
QUANTISED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
FLOATS = [torch.float32, torch.bfloat16, torch.float16]


def multiply(matrix: PackedMatrix, tokens: Tensor) -> Tensor:
    out = torch.empty(len(tokens), matrix.rows)
    struct = matrix.struct()
    load_library().fireside_multiply(ctypes.byref(struct), tokens.data_ptr(), len(tokens), out.data_ptr())
    return out


@cache
def quantised(kind: str, rows: int, columns: int) -> tuple[PackedMatrix, Tensor]:
    """A packed matrix, and the weights it stands for as the gguf package unfolds them."""
    weights = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    if kind == "Q3_K":  # the fixture's package cannot write it
        data = np.random.default_rng(0).integers(0, 256, (rows, columns // 256 * 110), dtype=np.uint8)
        data.reshape(-1, 110)[:, 108:] = np.array([2e-3], dtype=np.float16).view(np.uint8)
        exact = gguf.quants.dequantize(data, gguf.GGMLQuantizationType.Q3_K)
    else:
        data, exact = pack(weights, kind, 0)
    packed = pack_quantized(
        torch.from_numpy(np.ascontiguousarray(data).view(np.uint8)), GGMLType[kind], (rows, columns)
    )
    return packed, torch.from_numpy(np.array(exact))


def quantise_activations(tokens: Tensor, outlier: float = 4.5) -> Tensor:
    """The int8 values the kernel computes with, in float64: with finer errors in groups of large values (matmul.h)."""
    groups = tokens.unflatten(1, (-1, 32)).double()
    scale = groups.abs().amax(-1, keepdim=True) / 127
    exact = torch.where(scale > 0, groups / scale, 0.0)
    rounded = exact.round()
    errors = ((exact - rounded) * 254).round() / 254
    limit = outlier * tokens.double().square().mean(-1).sqrt()
    finer = scale * 127 > limit[:, None, None]
    return ((rounded + torch.where(finer, errors, 0.0)) * scale).flatten(1)


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_products_are_exact_for_the_quantised_tokens(kind: str) -> None:
    matrix, weights = quantised(kind, 49, 512)  # not a whole number of tiles
    tokens = torch.randn(23, 512, generator=torch.Generator().manual_seed(1))
    tokens[::3, 40:44] *= 30  # outliers in one group of some tokens
    expected = quantise_activations(tokens) @ weights.double().T
    actual = multiply(matrix, tokens)
    assert (actual - expected).abs().max() < 2e-5 * expected.abs().max()
    exact = tokens.double() @ weights.double().T
    plain = quantise_activations(tokens, outlier=float("inf")) @ weights.double().T
    with_outliers = slice(None, None, 3)
    assert (actual - exact)[with_outliers].norm() < 0.5 * (plain - exact)[with_outliers].norm()


# Bits per weight, its share of the scales included: as many as in the file, or an eighth more for a K-quant with
# minimums; Q2_K and Q3_K, which are kept in four bits, have 2.625 and 3.4375 there.
PACKED_BITS = {
    "Q4_0": 4.5, "Q4_1": 5, "Q5_0": 5.5, "Q5_1": 6, "Q8_0": 8.5,
    "Q2_K": 5.125, "Q3_K": 4.5625, "Q4_K": 4.625, "Q5_K": 5.625, "Q6_K": 6.5625,
}  # fmt: skip


@pytest.mark.parametrize("kind", QUANTISED)
def test_packed_size(kind: str) -> None:
    matrix, _ = quantised(kind, 64, 512)
    assert matrix.nbytes * 8 / (64 * 512) == PACKED_BITS[kind] == packing.packed_bits(GGMLType[kind])


@pytest.mark.parametrize("kind", QUANTISED)
def test_packing_in_chunks_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = quantised(kind, 49, 512)
    monkeypatch.setattr(packing, "_WEIGHTS_PER_CHUNK", 1)  # a tile at a time
    chunks, _ = quantised.__wrapped__(kind, 49, 512)
    for name in ("weights", "scales", "minimums", "scale_factors", "minimum_factors"):
        ours, theirs = getattr(chunks, name), getattr(whole, name)
        assert ours is theirs is None or torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", FLOATS)
def test_float_products(dtype: torch.dtype) -> None:
    weights = torch.randn(49, 500, generator=torch.Generator().manual_seed(0)).to(dtype)
    tokens = torch.randn(23, 500, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(multiply(pack_float(weights), tokens), tokens @ weights.float().T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [*QUANTISED, *FLOATS])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_token_gives_the_same_bits_in_any_company(kind: str | torch.dtype, data: st.DataObject) -> None:
    if isinstance(kind, str):
        matrix, _ = quantised(kind, 64, 256)
    else:
        matrix = pack_float(torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).to(kind))
    count = data.draw(st.integers(1, 40))
    tokens = torch.randn(count, 256, generator=torch.Generator().manual_seed(count)) * 10
    together = multiply(matrix, tokens)
    first = data.draw(st.integers(0, count - 1))
    some = tokens[first : first + data.draw(st.integers(1, count))]
    assert torch.equal(multiply(matrix, some.contiguous()), together[first : first + len(some)])


@pytest.mark.parametrize("kind", QUANTISED)
def test_embedding_rows_are_equal_to_the_bit(kind: str) -> None:
    matrix, weights = quantised(kind, 49, 512)
    struct = matrix.struct()
    for row in (0, 15, 16, 48):
        out = torch.empty(512)
        load_library().fireside_unpack_row(ctypes.byref(struct), row, out.data_ptr())
        assert torch.equal(out, weights[row])


def test_tokens_of_zeros_and_huge_values_stay_finite() -> None:
    matrix, weights = quantised("Q4_1", 49, 512)
    tokens = torch.zeros(3, 512)
    tokens[1] = 1e30
    tokens[2, 7] = -1e-30
    actual = multiply(matrix, tokens)
    assert torch.equal(actual[0], torch.zeros(49))
    torch.testing.assert_close(actual[1:], tokens[1:] @ weights.T, rtol=1e-3, atol=1e25)


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "Q6_K"])
def test_what_is_no_number_stays_none(kind: str) -> None:
    """int8 has no NaN: a damaged model must be seen in the logits, not answer as if nothing were wrong."""
    matrix, _ = quantised(kind, 49, 512)
    tokens = torch.randn(2, 512, generator=torch.Generator().manual_seed(1))
    clean = multiply(matrix, tokens)
    tokens[0, 7] = float("nan")
    actual = multiply(matrix, tokens)
    assert actual[0].isnan().all()
    assert torch.equal(actual[1], clean[1])
