"""Packing segments into rows: whole where that fills rows, and a cut only where it saves more padding than it costs."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
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
    packed like any other. `largest_gap=None` never cuts. A row may then get, beside the longest segment left, those
    that together fill it best: which of the two needs fewer rows depends on the lengths.
    """
    fitted = _best_fit(lengths, row_length, largest_gap)
    if largest_gap is not None:
        return fitted
    filled = _fill(lengths, row_length)
    return filled if len(filled) < len(fitted) else fitted


def _best_fit(lengths: Sequence[int], row_length: int, largest_gap: int | None) -> list[list[Piece]]:
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


def _fill(lengths: Sequence[int], row_length: int) -> list[list[Piece]]:
    """The longest segment opens a row, and the fullest sum of others fills it.

    Source: Gupta and Ho 1999 (minimum bin slack).
    """
    numbers: dict[int, list[int]] = {}
    for number in range(len(lengths) - 1, -1, -1):  # so that the earlier is taken sooner
        if lengths[number]:
            numbers.setdefault(lengths[number], []).append(number)
    left = Counter({length: len(found) for length, found in numbers.items()})
    sizes = sorted(left, reverse=True)
    rows = []
    while sizes:
        row = [sizes[0]]
        left[sizes[0]] -= 1
        row += _fullest(sizes, left, row_length - sizes[0])
        rows.append([Piece(numbers[length].pop(), 0, length) for length in row])
        left.subtract(row[1:])
        if not all(left[length] for length in row):
            sizes = [length for length in sizes if left[length]]
    return rows


def _fullest(sizes: Sequence[int], left: Counter[int], gap: int) -> list[int]:
    """Lengths whose sum is the largest up to `gap`. `sizes` fall, and `left` says how often there is each.

    Bit n of `reached` says that the lengths so far can be added up to n. Long ones come first, so that short ones are
    kept for the gaps that only they fill; with the gap filled, the search is over.
    """
    reached, mask = 1, (2 << gap) - 1
    steps: list[tuple[int, int]] = []  # what could be reached before a length was added, and the length
    for size in sizes:
        if size > gap:
            continue
        for _ in range(min(left[size], gap // size)):
            steps.append((reached, size))
            reached |= reached << size & mask
            if reached >> gap:
                break
        if reached >> gap:
            break
    at = reached.bit_length() - 1
    taken = []
    for before, size in reversed(steps):
        if not before >> at & 1:
            taken.append(size)
            at -= size
    return taken[::-1]
