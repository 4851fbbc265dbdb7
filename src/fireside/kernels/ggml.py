"""ggml's block quantisations as integers, scales and minimums: the form that every kernel starts from.

Layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h. Nothing is requantised here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fireside.gguf import BLOCK_LAYOUT, GGMLType


@dataclass(frozen=True)
class Groups:
    """Weights as `scale * (q - zero)`, or `scale * q + minimum` where `minimums` is given.

    quants: uint8 [blocks, weights], of `bits` bits. scales, minimums: float32 that float16 holds, [blocks, groups], a
    group being weights / groups long. In the K-quants these are one per block, [blocks, 1], and a group's own is that
    times its factor, int8 [blocks, groups].
    """

    quants: Tensor
    scales: Tensor
    minimums: Tensor | None = None
    scale_factors: Tensor | None = None
    minimum_factors: Tensor | None = None
    zero: int = 0
    bits: int = 8

    @property
    def groups(self) -> int:
        """Of a block."""
        return (self.scales if self.scale_factors is None else self.scale_factors).shape[1]

    def weights(self) -> Tensor:
        """float32 [blocks, weights], in the order of ggml's own operations and so equal to the bit."""
        q = self.quants.float().reshape(len(self.quants), self.groups, -1)
        scales = _times(self.scales, self.scale_factors)
        if self.minimums is None:
            values = scales * (q - self.zero)
        else:
            values = scales * q + _times(self.minimums, self.minimum_factors)
        return values.reshape(len(self.quants), -1)


def _times(values: Tensor, factors: Tensor | None) -> Tensor:
    """Exact: eleven bits times eight. [blocks, groups, 1]."""
    return (values if factors is None else values * factors.float())[..., None]


def unfold(data: Tensor, kind: GGMLType) -> Groups:
    """Takes whole quantised blocks apart: uint8 [..., bytes], flattened to [blocks, bytes per block]."""
    return _UNFOLD[kind](data.reshape(-1, BLOCK_LAYOUT[kind][1]))


def _half(two_bytes: Tensor) -> Tensor:
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


def _q4_0(blocks: Tensor) -> Groups:
    d, qs = torch.split(blocks, [2, 16], dim=1)
    return Groups(_fields(qs, 4, 16), _half(d), zero=8, bits=4)


def _q4_1(blocks: Tensor) -> Groups:
    d, m, qs = torch.split(blocks, [2, 2, 16], dim=1)
    return Groups(_fields(qs, 4, 16), _half(d), _half(m), bits=4)


def _q5_0(blocks: Tensor) -> Groups:
    d, qh, qs = torch.split(blocks, [2, 4, 16], dim=1)
    return Groups(_fields(qs, 4, 16) | (_bit_per_weight(qh) << 4), _half(d), zero=16, bits=5)


def _q5_1(blocks: Tensor) -> Groups:
    d, m, qh, qs = torch.split(blocks, [2, 2, 4, 16], dim=1)
    return Groups(_fields(qs, 4, 16) | (_bit_per_weight(qh) << 4), _half(d), _half(m), bits=5)


def _q8_0(blocks: Tensor) -> Groups:
    d, qs = torch.split(blocks, [2, 32], dim=1)
    return Groups(qs ^ 128, _half(d), zero=128)  # flipping the sign bit adds 128 to a signed byte


# The K-quants: 256 weights in sub-blocks, whose scales (and minimums) are small integers times one half per block.


def _q2_k(blocks: Tensor) -> Groups:
    scales, qs, d, dmin = torch.split(blocks, [16, 64, 2, 2], dim=1)
    return Groups(_fields(qs, 2, 32), _half(d), -_half(dmin), (scales & 15).char(), (scales >> 4).char(), bits=4)


def _q3_k(blocks: Tensor) -> Groups:
    hmask, qs, scales, d = torch.split(blocks, [32, 64, 12, 2], dim=1)
    # 16 scales of 6 bits: the low four in eight bytes, the high two in four.
    low, high = torch.split(scales, [8, 4], dim=1)
    six_bits = _fields(low, 4, 8) | (_fields(high, 2, 4) << 4)
    q = _fields(qs, 2, 32) | (_fields(hmask, 1, 32) << 2)
    return Groups(q, _half(d), scale_factors=six_bits.char() - 32, zero=4, bits=4)


def _scales_and_minimums(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Q4_K and Q5_K: eight scales and eight minimums of 6 bits in 12 bytes, to int8 [blocks, 8] each.

    The first four of each lie whole in the low bits of bytes 0-3 and 4-7; the others take their low four bits from
    bytes 8-11 and their high two from what those first bytes have left.
    """
    first, second, third = torch.split(packed, 4, dim=1)
    scales = torch.cat((first & 63, (third & 15) | ((first >> 2) & 48)), dim=1)
    minimums = torch.cat((second & 63, (third >> 4) | ((second >> 2) & 48)), dim=1)
    return scales.char(), minimums.char()


def _q4_k(blocks: Tensor) -> Groups:
    d, dmin, packed, qs = torch.split(blocks, [2, 2, 12, 128], dim=1)
    scales, minimums = _scales_and_minimums(packed)
    return Groups(_fields(qs, 4, 32), _half(d), -_half(dmin), scales, minimums, bits=4)


def _q5_k(blocks: Tensor) -> Groups:
    d, dmin, packed, qh, qs = torch.split(blocks, [2, 2, 12, 32, 128], dim=1)
    scales, minimums = _scales_and_minimums(packed)
    q = _fields(qs, 4, 32) | (_fields(qh, 1, 32) << 4)
    return Groups(q, _half(d), -_half(dmin), scales, minimums, bits=5)


def _q6_k(blocks: Tensor) -> Groups:
    ql, qh, scales, d = torch.split(blocks, [128, 64, 16, 2], dim=1)
    q = _fields(ql, 4, 64) | (_fields(qh, 2, 32) << 4)
    return Groups(q, _half(d), scale_factors=scales.contiguous().view(torch.int8), zero=32, bits=6)


_UNFOLD: dict[GGMLType, Callable[[Tensor], Groups]] = {
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
