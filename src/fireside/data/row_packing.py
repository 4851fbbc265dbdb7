"""Packing segments into rows: best fit, and a cut only where it saves more padding than it is worth."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a segment in a row: `segment` counts in what was packed, `offset` and `length` are positions."""

    segment: int
    offset: int
    length: int


def pack_rows(lengths: Sequence[int], row_length: int, *, largest_gap: int | None) -> list[list[Piece]]:
    """Rows of at most `row_length` positions that hold all of `lengths`, which are no longer than a row.

    Each row takes the longest segment that still fits, again and again (best fit, from the row's side). A gap that
    none fits is padded up to `largest_gap`; a larger one is filled by cutting the longest segment left, whose rest is
    packed like any other. `largest_gap=None` never cuts.
    """
    left = sorted((length, -number, 0) for number, length in enumerate(lengths) if length)  # the earlier, the sooner
    rows = []
    while left:
        row: list[Piece] = []
        gap = row_length
        while gap and left:
            index = bisect_right(left, (gap, 1, 0)) - 1
            if index >= 0:
                length, number, offset = left.pop(index)
                row.append(Piece(-number, offset, length))
                gap -= length
            elif largest_gap is not None and gap > largest_gap:
                length, number, offset = left.pop()
                row.append(Piece(-number, offset, gap))
                insort(left, (length - gap, number, offset + gap))
                gap = 0
            else:
                break
        rows.append(row)
    return rows
