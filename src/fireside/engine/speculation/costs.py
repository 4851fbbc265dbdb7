"""What a forward pass over so many tokens costs: what a guess has to earn."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping

from fireside.engine.batch import int32
from fireside.engine.runner import ForwardBatch, Runner

_STEP = 1.01  # by which one observation moves every point, and by its cube those next to it
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
    """Follows what passes really cost, on this machine, with these kernels, at this load.

    Guesses are chosen by these times, and tokens never depend on guesses: a wrong time makes them slower at worst.
    """

    def observe(self, tokens: int, seconds: float) -> None:
        """Small steps up or down follow the median: a pass that had to wait for other programs counts like any other
        slow one. Half of what was expected is no chance, though, and taken at its word."""
        expected = self.of(tokens)
        if seconds < expected / 2:
            self._seconds = [known * seconds / expected for known in self._seconds]
            return
        above = self._above(tokens)
        near = [index for index in (above - 1, above) if self._sizes[index] == tokens] or [above - 1, above]
        factor = _STEP if seconds > expected else 1 / _STEP
        least = 0.0
        for index, known in enumerate(self._seconds):
            # What is true of all sizes (load, length of contexts) moves all; no pass is cheaper than a shorter one.
            least = max(least, known * (factor**3 if index in near else factor))
            self._seconds[index] = least


# SmolLM2-135M and Qwen2.5-Coder-0.5B on two cores with AVX-512 VNNI, in passes over one token.
_SHAPE = {1: 1.0, 2: 1.1, 4: 1.35, 8: 2.2, 16: 3.4, 32: 5.2}
TYPICAL = PassCosts(_SHAPE)
TYPICAL_DRAFT = PassCosts({size: 0.1 * cost for size, cost in _SHAPE.items()})


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
