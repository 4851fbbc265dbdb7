"""ggml's block quantisations in PyTorch: weights stay packed until they are needed, then unfold to the exact values.

Layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h. Each function below takes whole blocks, uint8
[blocks, bytes per block], and returns their weights, float32 [blocks, weights per block]. Multiplications and
additions come in the order of ggml's own code, so results are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fireside.gguf import BLOCK_LAYOUT, GGMLType

FLOAT_DTYPES = {
    GGMLType.F32: torch.float32,
    GGMLType.F16: torch.float16,
    GGMLType.BF16: torch.bfloat16,
}

# Unpacking needs several times a chunk's size in temporaries; a large embedding must not.
_WEIGHTS_PER_CHUNK = 1 << 20


@dataclass(frozen=True)
class QuantizedTensor:
    """A weight matrix in ggml's blocks. `shape`: [rows, columns]; `data`: uint8 [rows, bytes per row]."""

    type: GGMLType
    shape: tuple[int, int]
    data: Tensor

    def __post_init__(self) -> None:
        rows, columns = self.shape
        per_block, block_bytes = BLOCK_LAYOUT[self.type]
        if columns % per_block or tuple(self.data.shape) != (rows, columns // per_block * block_bytes):
            raise ValueError(f"{self.type.name} data of shape {tuple(self.data.shape)} cannot hold {self.shape}")

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights, `dtype` [rows, columns]: exact in float32, rounded once in any other."""
        return self.dequantize_into(torch.empty(self.shape, dtype=dtype, device=self.data.device))

    def dequantize_into(self, out: Tensor) -> Tensor:
        """Writes the weights into `out` [rows, columns], of any float dtype on any device, a chunk at a time."""
        rows_per_chunk = max(1, _WEIGHTS_PER_CHUNK // self.shape[1])
        for start in range(0, self.shape[0], rows_per_chunk):
            rows = slice(start, start + rows_per_chunk)
            out[rows].copy_(dequantize(self.data[rows], self.type))
        return out


def dequantize(data: Tensor, kind: GGMLType) -> Tensor:
    """Unfolds `data`, uint8 [..., bytes], holding whole blocks of type `kind`: float32 [..., weights]."""
    per_block, block_bytes = BLOCK_LAYOUT[kind]
    if data.dtype != torch.uint8 or data.shape[-1] % block_bytes:
        raise ValueError(f"{kind.name} needs uint8 rows of a multiple of {block_bytes} bytes, not {tuple(data.shape)}")
    blocks = data.reshape(-1, block_bytes)
    dtype = FLOAT_DTYPES.get(kind)
    weights = _UNPACK[kind](blocks) if dtype is None else blocks.view(dtype).float()
    return weights.reshape(*data.shape[:-1], data.shape[-1] // block_bytes * per_block)


def _scale(two_bytes: Tensor) -> Tensor:
    """float16 in two bytes [blocks, 2] to float32 [blocks, 1]."""
    return two_bytes.contiguous().view(torch.float16).float()


def _fields(packed: Tensor, bits: int, group: int) -> Tensor:
    """Splits bytes into fields of `bits` bits: uint8 [blocks, n] to [blocks, n * 8 / bits].

    Within each run of `group` bytes ggml stores first the lowest field of all bytes, then the next, and so on.
    """
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)[:, None]
    fields = (packed.reshape(len(packed), -1, 1, group) >> shifts) & ((1 << bits) - 1)
    return fields.reshape(len(packed), -1)


def _bit_per_weight(packed: Tensor) -> Tensor:
    """32 bits, the first weight's lowest: uint8 [blocks, 4] to [blocks, 32]."""
    return _fields(packed, bits=1, group=1)


def _q4_0(blocks: Tensor) -> Tensor:
    d, qs = blocks.split_with_sizes([2, 16], dim=1)
    return _scale(d) * (_fields(qs, 4, 16).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    d, m, qs = blocks.split_with_sizes([2, 2, 16], dim=1)
    return _scale(d) * _fields(qs, 4, 16).float() + _scale(m)


def _q5_0(blocks: Tensor) -> Tensor:
    d, qh, qs = blocks.split_with_sizes([2, 4, 16], dim=1)
    q = _fields(qs, 4, 16) | (_bit_per_weight(qh) << 4)
    return _scale(d) * (q.float() - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    d, m, qh, qs = blocks.split_with_sizes([2, 2, 4, 16], dim=1)
    q = _fields(qs, 4, 16) | (_bit_per_weight(qh) << 4)
    return _scale(d) * q.float() + _scale(m)


def _q8_0(blocks: Tensor) -> Tensor:
    d, qs = blocks.split_with_sizes([2, 32], dim=1)
    return qs.view(torch.int8).float() * _scale(d)


# The K-quants: 256 weights in sub-blocks, whose scales (and minimums) are small integers times the block's d (dmin).


def _grouped(q: Tensor, scales: Tensor, minimums: Tensor | None = None) -> Tensor:
    """Weights [blocks, 256] from integers, and scales [blocks, sub-blocks]: q * scale - minimum in each sub-block."""
    weights = scales[..., None] * q.float().reshape(len(q), scales.shape[1], -1)
    if minimums is not None:
        weights = weights - minimums[..., None]
    return weights.reshape(len(q), -1)


def _q2_k(blocks: Tensor) -> Tensor:
    scales, qs, d, dmin = blocks.split_with_sizes([16, 64, 2, 2], dim=1)
    return _grouped(_fields(qs, 2, 32), _scale(d) * (scales & 15).float(), _scale(dmin) * (scales >> 4).float())


def _q3_k(blocks: Tensor) -> Tensor:
    hmask, qs, scales, d = blocks.split_with_sizes([32, 64, 12, 2], dim=1)
    # 16 scales of 6 bits: the low four in eight bytes, the high two in four.
    low, high = scales.split_with_sizes([8, 4], dim=1)
    six_bits = _fields(low, 4, 8) | (_fields(high, 2, 4) << 4)
    # The third bit of a weight says that 4 need not be taken off.
    q = _fields(qs, 2, 32).float() - 4 * (1 - _fields(hmask, 1, 32).float())
    return _grouped(q, _scale(d) * (six_bits.float() - 32))


def _scales_and_minimums(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Q4_K and Q5_K: eight scales and eight minimums of 6 bits in 12 bytes, to float32 [blocks, 8] each.

    The first four of each lie whole in the low bits of bytes 0-3 and 4-7; the others take their low four bits from
    bytes 8-11 and their high two from what those first bytes have left.
    """
    first, second, third = packed.chunk(3, dim=1)
    scales = torch.cat((first & 63, (third & 15) | ((first >> 2) & 48)), dim=1)
    minimums = torch.cat((second & 63, (third >> 4) | ((second >> 2) & 48)), dim=1)
    return scales.float(), minimums.float()


def _q4_k(blocks: Tensor) -> Tensor:
    d, dmin, packed, qs = blocks.split_with_sizes([2, 2, 12, 128], dim=1)
    scales, minimums = _scales_and_minimums(packed)
    return _grouped(_fields(qs, 4, 32), _scale(d) * scales, _scale(dmin) * minimums)


def _q5_k(blocks: Tensor) -> Tensor:
    d, dmin, packed, qh, qs = blocks.split_with_sizes([2, 2, 12, 32, 128], dim=1)
    scales, minimums = _scales_and_minimums(packed)
    q = _fields(qs, 4, 32) | (_fields(qh, 1, 32) << 4)
    return _grouped(q, _scale(d) * scales, _scale(dmin) * minimums)


def _q6_k(blocks: Tensor) -> Tensor:
    ql, qh, scales, d = blocks.split_with_sizes([128, 64, 16, 2], dim=1)
    q = _fields(ql, 4, 64) | (_fields(qh, 2, 32) << 4)
    return _grouped(q.float() - 32, _scale(d) * scales.contiguous().view(torch.int8).float())


_UNPACK: dict[GGMLType, Callable[[Tensor], Tensor]] = {
    GGMLType.Q4_0: _q4_0,
    GGMLType.Q4_1: _q4_1,
    GGMLType.Q5_0: _q5_0,
    GGMLType.Q5_1: _q5_1,
    GGMLType.Q8_0: _q8_0,
    GGMLType.Q2_K: _q2_k,
    GGMLType.Q3_K: _q3_k,
    GGMLType.Q4_K: _q4_k,
    GGMLType.Q5_K: _q5_k,
    GGMLType.Q6_K: _q6_k,
}
