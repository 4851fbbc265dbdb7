"""Weights in ggml's quantised blocks: packed until they are needed, then unfolded to the exact values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fireside.gguf import BLOCK_LAYOUT, GGMLType
from fireside.kernels.ggml import unfold

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
        for rows, weights in self.chunks():
            out[rows].copy_(weights)
        return out

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """All weights, float32, so many rows at a time that the temporaries stay small."""
        rows_per_chunk = max(1, _WEIGHTS_PER_CHUNK // self.shape[1])
        for start in range(0, self.shape[0], rows_per_chunk):
            rows = slice(start, start + rows_per_chunk)
            yield rows, dequantize(self.data[rows], self.type)

    def rows(self, indices: Tensor) -> Tensor:
        """Those rows, float32 [..., columns], for `indices`, int64 [...]."""
        return dequantize(self.data[indices], self.type)

    def to(self, device: torch.device | str) -> QuantizedTensor:
        return QuantizedTensor(self.type, self.shape, self.data.to(device))


def dequantize(data: Tensor, kind: GGMLType) -> Tensor:
    """Unfolds `data`, uint8 [..., bytes], holding whole blocks of type `kind`: float32 [..., weights]."""
    per_block, block_bytes = BLOCK_LAYOUT[kind]
    if data.dtype != torch.uint8 or data.shape[-1] % block_bytes:
        raise ValueError(f"{kind.name} needs uint8 rows of a multiple of {block_bytes} bytes, not {tuple(data.shape)}")
    blocks = data.reshape(-1, block_bytes)
    dtype = FLOAT_DTYPES.get(kind)
    weights = unfold(blocks, kind).weights() if dtype is None else blocks.view(dtype).float()
    return weights.reshape(*data.shape[:-1], data.shape[-1] // block_bytes * per_block)
