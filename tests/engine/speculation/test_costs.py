"""What passes cost, as far as guessing believes."""

from __future__ import annotations

import random

import pytest

from fireside.engine.engine import Engine
from fireside.engine.speculation.costs import TYPICAL, LearnedCosts, PassCosts, first_costs
from fireside.engine.speculation.speculator import Speculator
from tests.engine.driving import request, run
from tests.engine.fake_runner import FakeRunner

SHAPE = {1: 1.0, 2: 1.1, 4: 1.4, 8: 2.0, 16: 3.0}


def test_costs_lie_on_lines_between_the_points() -> None:
    costs = PassCosts({1: 1.0, 4: 1.6, 8: 2.4})
    assert [costs.of(tokens) for tokens in (1, 2, 4, 6, 8, 10)] == pytest.approx([1.0, 1.2, 1.6, 2.0, 2.4, 2.8])
    costs.observe(1, 100.0)
    assert costs.of(1) == 1.0  # these do not learn


def test_costs_follow_the_median_of_what_is_seen() -> None:
    """Whatever they were thought to be; and one pass in ten that waits for another program does not move them."""
    truth = {1: 0.020, 2: 0.030, 4: 0.035, 8: 0.036, 16: 0.080}
    costs = LearnedCosts(SHAPE)
    noise = random.Random(0)
    for _ in range(2000):
        size = noise.choice(list(truth))
        seconds = truth[size] * noise.uniform(0.95, 1.05)
        costs.observe(size, seconds * 50 if noise.random() < 0.1 else seconds)
    for size, seconds in truth.items():
        assert costs.of(size) == pytest.approx(seconds, rel=0.12)


def test_load_moves_all_sizes_and_order_is_kept() -> None:
    costs = LearnedCosts(SHAPE)
    for _ in range(200):
        costs.observe(1, 1.5)
    assert costs.of(1) == pytest.approx(1.5, rel=0.05)
    assert costs.of(16) > 3.0  # never seen, and slower too
    values = [costs.of(tokens) for tokens in range(1, 40)]
    assert values == sorted(values)


def test_a_far_faster_pass_is_believed_at_once() -> None:
    costs = LearnedCosts(SHAPE)
    costs.observe(4, 0.014)
    assert [costs.of(1), costs.of(8)] == pytest.approx([0.01, 0.02])


def test_first_costs_are_one_pass_in_the_usual_proportions() -> None:
    runner = FakeRunner(num_blocks=1)
    costs = first_costs(runner)
    assert set(map(tuple, runner.passes)) == {(1,)}
    assert costs.of(8) / costs.of(1) == pytest.approx(TYPICAL.of(8))


class Recording(PassCosts):
    def __init__(self) -> None:
        super().__init__(SHAPE)
        self.seen: list[int] = []

    def observe(self, tokens: int, seconds: float) -> None:
        assert seconds > 0
        self.seen.append(tokens)


def test_the_engine_tells_what_its_passes_over_guesses_took_and_no_others() -> None:
    costs, runner = Recording(), FakeRunner(vocab_size=1)
    engine = Engine(runner, max_context=200, max_batch_tokens=16, speculator=Speculator(7, costs=costs))
    run(engine, request("a", [0] * 40, max_tokens=30))
    assert costs.seen == [sum(tokens) for tokens in runner.passes[3:]]  # the first three compute the prompt
    assert max(costs.seen) > 1
