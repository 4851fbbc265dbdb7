"""Learning rates, by hand."""

from __future__ import annotations

import pytest

from fireside.training.schedules import Schedule, learning_rate_factor


def factors(schedule: Schedule, **values: float) -> list[float]:
    settings = {"warmup_steps": 2, "decay_fraction": 0.4} | values
    return [round(learning_rate_factor(schedule, step, 10, **settings), 4) for step in range(10)]  # type: ignore[arg-type]


def test_wsd_stays_and_falls_at_the_end() -> None:
    assert factors(Schedule.WSD) == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_linear_falls_from_the_start_to_its_floor() -> None:
    assert factors(Schedule.LINEAR, floor=0.2) == [0.5, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]


def test_cosine_is_half_way_in_the_middle() -> None:
    found = factors(Schedule.COSINE)
    assert found[6] == 0.5 and 0 < found[-1] < 0.1 and found[2:] == sorted(found[2:], reverse=True)


@pytest.mark.parametrize("schedule", Schedule)
def test_one_step_and_no_warmup(schedule: Schedule) -> None:
    assert learning_rate_factor(schedule, 0, 1, warmup_steps=0) == 1.0
    assert learning_rate_factor(schedule, 0, 1, warmup_steps=1) == 1.0
