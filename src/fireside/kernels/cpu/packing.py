"""Packs weight matrices into the tiles of 16 rows that the native kernels read (see matmul.h)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from fireside.gguf import BLOCK_LAYOUT, GGMLType
from fireside.kernels.ggml import unfold

LANES = 16
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_QUANTIZED = 3
_WEIGHTS_PER_CHUNK = 1 << 22  # packing takes a few bytes for each in temporaries; a large embedding must not


class MatrixStruct(ctypes.Structure):
    """matmul.h's `Matrix`."""

    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("mins", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("kind", "rows", "columns", "bits", "group", "zero", "wide", "padding")),
    )


@dataclass(frozen=True)
class PackedMatrix:
    """A packed matrix; `struct` points into the tensors, which must live as long as it is used."""

    rows: int
    columns: int
    kind: int
    weights: Tensor
    scales: Tensor | None = None
    minimums: Tensor | None = None
    bits: int = 0
    group: int = 0
    zero: int = 0
    wide: bool = False

    def struct(self) -> MatrixStruct:
        pointers = (t.data_ptr() if t is not None else None for t in (self.weights, self.scales, self.minimums))
        return MatrixStruct(
            *pointers, self.kind, self.rows, self.columns, self.bits, self.group, self.zero, int(self.wide), 0
        )

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.weights, self.scales, self.minimums) if t is not None)


def pack_float(weight: Tensor) -> PackedMatrix:
    """float32, bfloat16 or float16 [rows, columns] to [tiles, columns, 16]."""
    rows, columns = weight.shape
    tiles = pad(weight, (0, 0, 0, -rows % LANES)).reshape(-1, LANES, columns)
    return PackedMatrix(rows, columns, _KINDS[weight.dtype], tiles.transpose(1, 2).contiguous())


def pack_quantized(data: Tensor, kind: GGMLType, shape: tuple[int, int]) -> PackedMatrix:
    """ggml blocks, uint8 [rows, bytes per row], to tiles; exact, nothing is requantised."""
    rows, columns = shape
    rows_per_chunk = max(1, _WEIGHTS_PER_CHUNK // columns // LANES) * LANES  # whole tiles
    row_bytes = columns // BLOCK_LAYOUT[kind][0] * BLOCK_LAYOUT[kind][1]
    chunks = [
        _pack_rows(data[start : start + rows_per_chunk].reshape(-1, row_bytes), kind, columns)
        for start in range(0, rows, rows_per_chunk)
    ]
    first = chunks[0]

    def join(parts: list[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return torch.cat(present) if present else None

    weights = join([chunk.weights for chunk in chunks])
    assert weights is not None
    return PackedMatrix(
        rows, columns, _QUANTIZED, weights, join([c.scales for c in chunks]), join([c.minimums for c in chunks]),
        first.bits, first.group, first.zero, first.wide,
    )  # fmt: skip


def _pack_rows(data: Tensor, kind: GGMLType, columns: int) -> PackedMatrix:
    rows = len(data)
    blocks = unfold(data, kind)
    groups = prod(blocks.scales.shape) // rows
    group = columns // groups
    # [rows, groups, strips of four columns, 4] -> [tiles, groups, strips, 16 rows, 4]
    quants = pad(blocks.quants.reshape(rows, columns), (0, 0, 0, -rows % LANES))
    strips = quants.reshape(-1, LANES, groups, group // 4, 4).permute(0, 2, 3, 1, 4)
    if blocks.bits == 4:  # the first half of a group's columns in the low halves of its bytes, the second in the high
        half = group // 8
        strips = strips[:, :, :half] | (strips[:, :, half:] << 4)

    def lanes(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        tiles = pad(values.reshape(rows, groups), (0, 0, 0, -rows % LANES)).reshape(-1, LANES, groups)
        return tiles.transpose(1, 2).to(torch.float32 if blocks.wide else torch.float16).contiguous()

    return PackedMatrix(
        rows, columns, _QUANTIZED, strips.contiguous(), lanes(blocks.scales), lanes(blocks.minimums),
        blocks.bits, group, blocks.zero, blocks.wide,
    )  # fmt: skip
