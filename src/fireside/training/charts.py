"""Curves: as SVG that needs nothing else, and as a line of text."""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# In units of the drawing, which is as wide as a phone: there its letters have the size that is asked for.
_WIDTH, _HEIGHT = 400, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 10, 24
_POINTS = 200  # of a curve; more are drawn as means, with a band from the least to the most
_POWERS = (("G", 1e9), ("M", 1e6), ("k", 1e3))
_BARS = "▁▂▃▄▅▆▇█"

Points = Sequence[tuple[float, float]]  # ascending in the first


@dataclass(frozen=True)
class Curve:
    """What a curve shows. unit: of its values, for its caption. suffix: of its numbers, after k, M or G. is_from_zero:
    whether its axis begins there; it is for quantities of which half is half."""

    title: str
    unit: str = ""
    suffix: str = ""
    is_from_zero: bool = False


def svg_chart(points: Points, curve: Curve, *, end: float) -> str:
    """A figure, with tokens from 0 to `end` along its lower side. points: tokens and value, at least one."""
    bins = _bins(points)
    values = [value for _, value in points]
    low, high, step = _scale(0.0 if curve.is_from_zero else min(values), max(values), ticks=4)
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT

    def x(tokens: float) -> float:
        return round(_LEFT + tokens / (end or 1.0) * (right - _LEFT), 1)

    def y(value: float) -> float:
        return round(_TOP + (high - value) / (high - low) * (floor - _TOP), 1)

    def line(corners: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x(tokens)},{y(value)}" for tokens, value in corners)

    parts = []
    for index in range(round((high - low) / step) + 1):
        value = low + index * step
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value)}H{right}"/>')
        label = html.escape(number(value, curve.suffix, like=high))
        parts.append(f'<text class="end" x="{_LEFT - 6}" y="{y(value) + 4}">{label}</text>')
    _, _, tokens_step = _scale(0.0, end, ticks=4)
    for index in range(int(end / tokens_step) + 1):
        tokens = index * tokens_step
        place = "" if index == 0 else ' class="middle"'
        parts.append(f'<text{place} x="{x(tokens)}" y="{_HEIGHT - 6}">{number(tokens, like=end)}</text>')
    if len(bins) < len(points):
        band = [(tokens, most) for tokens, _, _, most in bins] + [(tokens, least) for tokens, _, least, _ in bins[::-1]]
        parts.append(f'<polygon points="{line(band)}"/>')
    parts.append(f'<polyline points="{line([(tokens, mean) for tokens, mean, _, _ in bins])}"/>')
    parts.append(f'<circle cx="{x(bins[-1][0])}" cy="{y(bins[-1][1])}" r="2.5"/>')
    title, unit = html.escape(curve.title), html.escape(curve.unit)
    return (
        f"<figure><figcaption><b>{title}</b> <span>{unit}</span>"
        f"<output>{html.escape(number(values[-1], curve.suffix))}</output></figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg></figure>'
    )


def sparkline(points: Points, *, width: int = 32, is_from_zero: bool = False) -> str:
    """A curve of at most `width` letters: "█▆▄▃▂▂▁▁"."""
    means = [mean for _, mean, _, _ in _bins(points, width)]
    low = 0.0 if is_from_zero else min(means)
    span = (max(means) - low) or 1.0
    return "".join(_BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)


def number(value: float, suffix: str = "", *, like: float = 0.0) -> str:
    """In a few letters: "1.5M", "0.0025", "3e-05". like: a value whose k, M or G this one takes too."""
    largest = max(abs(value), abs(like))
    letter, power = next(((letter, power) for letter, power in _POWERS if largest >= power), ("", 1.0))
    unit = letter + suffix if value or suffix else ""
    return f"{value / power:.4g}" + (f" {unit}" if suffix else unit)


def _scale(low: float, high: float, *, ticks: int) -> tuple[float, float, float]:
    """Ends and step of an axis that holds both values: a step is 1, 2, 2.5 or 5 times a power of ten."""
    span = max(high - low or abs(high) or 1.0, sys.float_info.min)  # smaller ones have no logarithm
    power = 10.0 ** math.floor(math.log10(span / ticks))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power * ticks >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, max(last, first + 1) * step, step


def _bins(points: Points, most: int = _POINTS) -> list[tuple[float, float, float, float]]:
    """At most `most` of: the last place, mean, least and greatest value of points that follow one another."""
    size = -(-len(points) // most)
    found = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [value for _, value in part]
        found.append((part[-1][0], math.fsum(values) / len(values), min(values), max(values)))
    return found
