"""Dequantisation against the `gguf` package, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as reference_dequantize

from fireside.gguf import BLOCK_LAYOUT, GGMLType
from fireside.models.quantization import QuantizedTensor, dequantize


def random_rows(kind: GGMLType, rows: int, blocks: int, seed: int = 0) -> np.ndarray:
    """Random bytes: every pattern of quants and scales, infinities and NaN among the scales too."""
    return np.random.default_rng(seed).integers(0, 256, (rows, blocks * BLOCK_LAYOUT[kind][1]), dtype=np.uint8)


@pytest.mark.parametrize("kind", list(GGMLType), ids=lambda kind: kind.name)
def test_equal_to_the_gguf_package_to_the_bit(kind: GGMLType) -> None:
    data = random_rows(kind, rows=33, blocks=40)
    with np.errstate(all="ignore"):
        expected = reference_dequantize(data, GGMLQuantizationType[kind.name])
    actual = dequantize(torch.from_numpy(data), kind).numpy()
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    finite = np.isfinite(expected)
    assert finite.mean() > 0.5
    np.testing.assert_array_equal(actual[finite].view(np.uint32), expected[finite].view(np.uint32))
    np.testing.assert_array_equal(actual, expected)  # NaN and infinities in the same places


@pytest.mark.parametrize("kind", [GGMLType.Q4_1, GGMLType.Q6_K, GGMLType.Q8_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrix_in_chunks_is_the_matrix(monkeypatch: pytest.MonkeyPatch, kind: GGMLType, dtype: torch.dtype) -> None:
    data = torch.from_numpy(random_rows(kind, rows=7, blocks=2))
    shape = (7, 2 * BLOCK_LAYOUT[kind][0])
    whole = dequantize(data, kind).to(dtype)
    monkeypatch.setattr("fireside.models.quantization._WEIGHTS_PER_CHUNK", 3 * shape[1])
    torch.testing.assert_close(
        QuantizedTensor(kind, shape, data).dequantize(dtype), whole, rtol=0, atol=0, equal_nan=True
    )


def test_data_that_cannot_hold_the_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="Q4_0 data of shape"):
        QuantizedTensor(GGMLType.Q4_0, (2, 32), torch.zeros(2, 17, dtype=torch.uint8))
    with pytest.raises(ValueError, match="multiple of 18 bytes"):
        dequantize(torch.zeros(2, 17, dtype=torch.uint8), GGMLType.Q4_0)
