"""What a forward pass over so many tokens costs: what a guess has to earn."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

from fireside.engine.batch import int32
from fireside.engine.runner import ForwardBatch, Runner

_STEP = 1.02  # by which one observation moves an estimate
_REPEATS = 3


class PassCosts:
    """Seconds by tokens of a pass, linear between the given points and beyond the last two."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        """`seconds`: at least two points, one token among them."""
        self._sizes = sorted(seconds)
        self._seconds = [seconds[size] for size in self._sizes]

    def of(self, tokens: int) -> float:
        above = self._above(tokens)
        left, right = self._sizes[above - 1], self._sizes[above]
        slope = (self._seconds[above] - self._seconds[above - 1]) / (right - left)
        return self._seconds[above - 1] + slope * (tokens - left)

    def observe(self, tokens: int, seconds: float) -> None:
        """A pass over `tokens` has taken `seconds`. These costs are fixed; see `LearnedCosts`."""

    def _above(self, tokens: int) -> int:
        return min(max(1, bisect_left(self._sizes, tokens)), len(self._sizes) - 1)


class LearnedCosts(PassCosts):
    """Follows what passes really cost, on this machine, with these kernels.

    Guesses are chosen by these times, and tokens never depend on guesses: a wrong time makes them slower at worst.
    Small steps up or down follow the median, so a pass that had to wait for other programs counts like any slow one.
    What one size costs beside another is learned from two passes in a row, which had the same load and nearly the same
    contexts: other programs that come and go must not make sizes look dear that were used while they were there.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        super().__init__(seconds)
        self._previous: tuple[int, float] | None = None

    def observe(self, tokens: int, seconds: float) -> None:
        if self._previous is not None and self._previous[0] != tokens:
            other, others = self._previous
            step = _STEP if seconds / others > self.of(tokens) / self.of(other) else 1 / _STEP
            self._move(tokens, step)
            self._move(other, 1 / step)
        self._previous = (tokens, seconds)
        step = _STEP if seconds > self.of(tokens) else 1 / _STEP
        self._seconds = [known * step for known in self._seconds]

    def _move(self, tokens: int, factor: float) -> None:
        """Moves the points next to a size; no pass gets cheaper than a shorter one."""
        above = self._above(tokens)
        for index in [index for index in (above - 1, above) if self._sizes[index] == tokens] or [above - 1, above]:
            self._seconds[index] *= factor
        self._seconds = list(accumulate(self._seconds, max))


# SmolLM2-135M and Qwen2.5-Coder-0.5B on two cores with AVX-512 VNNI, in passes over one token.
_SHAPE = {1: 1.0, 2: 1.1, 4: 1.35, 8: 2.2, 16: 3.4, 32: 5.2}


def first_costs(runner: Runner) -> LearnedCosts:
    """Typical costs in proportion to one token's, which is timed. To be called before any sequence holds blocks: it
    writes into the first."""
    least = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        runner.forward(_ONE_TOKEN)
        least = min(least, time.perf_counter() - start)
    return LearnedCosts({size: least * cost for size, cost in _SHAPE.items()})


_ONE_TOKEN = ForwardBatch(
    token_ids=int32([0]),
    positions=int32([0]),
    query_starts=int32([0, 1]),
    context_lengths=int32([1]),
    block_tables=int32([0]).view(1, 1),
    logit_indices=int32([0]),
)
