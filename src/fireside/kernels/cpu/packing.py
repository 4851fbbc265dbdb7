"""Packs weight matrices into the tiles of 16 rows that the native kernels read (see matmul.h)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from fireside.gguf import BLOCK_LAYOUT, GGMLType
from fireside.kernels.ggml import unfold

LANES = 16
RUN = 32  # columns that are packed together, and that share an activation scale
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_QUANTIZED = 3
_NUMBERS = ("scales", "minimums", "scale_factors", "minimum_factors")
_WEIGHTS_PER_CHUNK = 1 << 22  # packing takes a few bytes for each in temporaries; a large embedding must not


class MatrixStruct(ctypes.Structure):
    """matmul.h's `Matrix`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", *_NUMBERS)),
        *((name, ctypes.c_int32) for name in ("kind", "rows", "columns", "bits", "group", "zero")),
    )


@dataclass(frozen=True, kw_only=True)
class PackedMatrix:
    """A packed matrix; `struct` points into the tensors, which must live as long as it is used."""

    rows: int
    columns: int
    kind: int
    weights: Tensor
    scales: Tensor | None = None
    minimums: Tensor | None = None
    scale_factors: Tensor | None = None
    minimum_factors: Tensor | None = None
    bits: int = 0
    group: int = 0
    zero: int = 0

    @property
    def tensors(self) -> list[Tensor]:
        """Weights, and the numbers that scale them."""
        found = (self.weights, self.scales, self.minimums, self.scale_factors, self.minimum_factors)
        return [tensor for tensor in found if tensor is not None]

    def struct(self) -> MatrixStruct:
        struct = MatrixStruct(
            weights=self.weights.data_ptr(), kind=self.kind, rows=self.rows, columns=self.columns,
            bits=self.bits, group=self.group, zero=self.zero,
        )  # fmt: skip
        for name in _NUMBERS:
            numbers = getattr(self, name)
            setattr(struct, name, None if numbers is None else numbers.data_ptr())
        return struct

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


def pack_float(weight: Tensor) -> PackedMatrix:
    """float32, bfloat16 or float16 [rows, columns] to [tiles, columns, 16]."""
    rows, columns = weight.shape
    tiles = pad(weight, (0, 0, 0, -rows % LANES)).reshape(-1, LANES, columns).transpose(1, 2).contiguous()
    return PackedMatrix(rows=rows, columns=columns, kind=_KINDS[weight.dtype], weights=tiles)


def pack_quantized(data: Tensor, kind: GGMLType, shape: tuple[int, int]) -> PackedMatrix:
    """ggml blocks, uint8 [rows, bytes per row], to tiles; exact, nothing is requantised."""
    rows, columns = shape
    rows_per_chunk = max(1, _WEIGHTS_PER_CHUNK // columns // LANES) * LANES  # whole tiles
    row_bytes = columns // BLOCK_LAYOUT[kind][0] * BLOCK_LAYOUT[kind][1]
    chunks = [
        _pack_rows(data[start : start + rows_per_chunk].reshape(-1, row_bytes), kind, columns)
        for start in range(0, rows, rows_per_chunk)
    ]

    def join(name: str) -> Tensor | None:
        parts: list[Tensor | None] = [getattr(chunk, name) for chunk in chunks]
        present = [part for part in parts if part is not None]
        return torch.cat(present) if present else None

    weights = join("weights")
    assert weights is not None
    return replace(
        chunks[0], rows=rows, weights=weights, scales=join("scales"), minimums=join("minimums"),
        scale_factors=join("scale_factors"), minimum_factors=join("minimum_factors"),
    )  # fmt: skip


@cache
def packed_bits(kind: GGMLType) -> float:
    """Bits that a weight takes once it is packed, its share of the scales included: more than in the file for some."""
    columns, row_bytes = BLOCK_LAYOUT[kind]
    if columns == 1:
        return 8 * row_bytes
    tile = pack_quantized(torch.zeros(LANES, row_bytes, dtype=torch.uint8), kind, (LANES, columns))
    return tile.nbytes * 8 / (LANES * columns)


def _pack_rows(data: Tensor, kind: GGMLType, columns: int) -> PackedMatrix:
    rows = len(data)
    blocks = unfold(data, kind)
    per_block = blocks.quants.shape[1]
    # [rows, runs of 32 columns, strips of four columns, 4] -> [tiles, runs, strips, 16 rows, 4]
    quants = pad(blocks.quants.reshape(rows, columns), (0, 0, 0, -rows % LANES))
    strips = quants.reshape(-1, LANES, columns // RUN, RUN // 4, 4).permute(0, 2, 3, 1, 4)

    def lanes(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if values is None:
            return None
        values = pad(values.reshape(rows, -1), (0, 0, 0, -rows % LANES))
        tiles = values.reshape(-1, LANES, values.shape[1])
        return tiles.transpose(1, 2).to(dtype).contiguous()

    return PackedMatrix(
        rows=rows, columns=columns, kind=_QUANTIZED, weights=_squeeze(strips, blocks.bits),
        scales=lanes(blocks.scales, torch.float16), minimums=lanes(blocks.minimums, torch.float16),
        scale_factors=lanes(blocks.scale_factors, torch.int8),
        minimum_factors=lanes(blocks.minimum_factors, torch.int8),
        bits=blocks.bits, group=per_block // blocks.groups, zero=blocks.zero,
    )  # fmt: skip


def _squeeze(strips: Tensor, bits: int) -> Tensor:
    """Takes the unused bits out of uint8 [tiles, runs, 8 strips, 16, 4]: see `unpack` in matmul.h.

    The low four bits of strips 0 to 3 lie in the low halves of as many strips, those of 4 to 7 in the high halves;
    then a strip holds a fifth bit of each of the eight, or each of two strips the fifth and sixth of four.
    """
    if bits == 8:
        return strips.contiguous()
    low = strips & 15
    parts = [low[:, :, :4] | (low[:, :, 4:] << 4)]
    more = bits - 4
    if more:
        per_byte = 8 // more
        shifts = (torch.arange(per_byte, dtype=torch.uint8) * more)[:, None, None]
        tiles, runs, count, rows, columns = strips.shape
        high = (strips >> 4).reshape(tiles, runs, count // per_byte, per_byte, rows, columns) << shifts
        parts.append(high.sum(3, dtype=torch.uint8))
    return torch.cat(parts, dim=2)
