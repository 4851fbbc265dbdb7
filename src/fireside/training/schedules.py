"""Learning rates over a run: factors of the peak as a function of the step alone, so that there is nothing to save."""

from __future__ import annotations

import math
from enum import StrEnum


class Schedule(StrEnum):
    """How the rate leaves its peak."""

    WSD = "wsd"  # warm up, stay, fall linearly at the end (https://arxiv.org/abs/2404.06395)
    COSINE = "cosine"
    LINEAR = "linear"


def learning_rate_factor(
    schedule: Schedule, step: int, steps: int, *, warmup_steps: int, decay_fraction: float = 0.3, floor: float = 0.0
) -> float:
    """What the peak rate is multiplied by in step `step` of `steps`, counted from 0.

    It rises linearly to 1 over `warmup_steps`, and falls to `floor`, which it would reach one step after the last, so
    that no step is in vain. `decay_fraction`: the share of all steps in which WSD falls.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    start = warmup_steps
    if schedule is Schedule.WSD:
        start = max(start, steps - round(decay_fraction * steps))
    progress = min(max((step - start) / max(1, steps - start), 0.0), 1.0) if step >= start else 0.0
    remaining = (1 + math.cos(math.pi * progress)) / 2 if schedule is Schedule.COSINE else 1 - progress
    return floor + (1 - floor) * remaining
