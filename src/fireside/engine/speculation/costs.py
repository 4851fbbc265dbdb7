"""What a forward pass over so many tokens costs: what a guess has to earn."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping

from fireside.engine.batch import int32
from fireside.engine.runner import ForwardBatch, Runner

_SIZES = (1, 2, 4, 8, 16)
_REPEATS = 3
_PATIENCE = 2.0  # seconds after which measuring is not repeated: of a large model one pass says enough


class PassCosts:
    """Seconds by tokens of a pass, linear between the measured points and beyond the last two."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        """`seconds`: at least two points, one token among them."""
        self._sizes = sorted(seconds)
        # A longer pass that seems cheaper was measured in a quieter moment.
        self._seconds: list[float] = []
        for size in self._sizes:
            self._seconds.append(max(seconds[size], self._seconds[-1] if self._seconds else 0.0))

    def of(self, tokens: int) -> float:
        above = min(max(1, bisect_left(self._sizes, tokens)), len(self._sizes) - 1)
        left, right = self._sizes[above - 1], self._sizes[above]
        slope = (self._seconds[above] - self._seconds[above - 1]) / (right - left)
        return self._seconds[above - 1] + slope * (tokens - left)


# SmolLM2-135M and Qwen2.5-Coder-0.5B on two cores with AVX-512 VNNI, in passes over one token; a tenth for a draft.
TYPICAL = PassCosts({1: 1.0, 2: 1.1, 4: 1.35, 8: 2.2, 16: 3.4})
TYPICAL_DRAFT = PassCosts({1: 0.1, 2: 0.11, 4: 0.135, 8: 0.22, 16: 0.34})


def measure_costs(runner: Runner) -> PassCosts:
    """Times a few passes, the least of each size. To be called before any sequence holds blocks: it writes into them.

    Guesses are chosen by these times, and tokens never depend on guesses: a busy moment makes them slower at worst.
    """
    seconds: dict[int, float] = {}
    start = time.perf_counter()
    sizes = [size for size in _SIZES if size <= runner.num_blocks * runner.block_size]
    for _ in range(_REPEATS):
        for size in sizes:
            batch = _batch(size, runner.block_size)
            before = time.perf_counter()
            runner.forward(batch)
            elapsed = time.perf_counter() - before
            seconds[size] = min(seconds.get(size, elapsed), elapsed)
        if time.perf_counter() - start > _PATIENCE:
            break
    return PassCosts(seconds)


def _batch(tokens: int, block_size: int) -> ForwardBatch:
    """One sequence, all of whose logits are wanted, as when guesses are checked."""
    return ForwardBatch(
        token_ids=int32([0] * tokens),
        positions=int32(range(tokens)),
        query_starts=int32([0, tokens]),
        context_lengths=int32([tokens]),
        block_tables=int32(range(-(-tokens // block_size))).view(1, -1),
        logit_indices=int32(range(tokens)),
    )
