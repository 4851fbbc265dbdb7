"""What passes cost, as far as guessing believes."""

from __future__ import annotations

import random

import pytest

from fireside.engine.engine import Engine
from fireside.engine.speculation.costs import LearnedCosts, PassCosts, first_costs
from fireside.engine.speculation.speculator import Speculator
from tests.engine.driving import request, run
from tests.engine.fake_runner import FakeRunner
from tests.engine.speculation.drafting import TYPICAL

SHAPE = {1: 1.0, 2: 1.1, 4: 1.4, 8: 2.0, 16: 3.0}


def test_costs_lie_on_lines_between_the_points() -> None:
    costs = PassCosts({1: 1.0, 4: 1.6, 8: 2.4})
    assert [costs.of(tokens) for tokens in (1, 2, 4, 6, 8, 10)] == pytest.approx([1.0, 1.2, 1.6, 2.0, 2.4, 2.8])
    costs.observe(1, 100.0)
    assert costs.of(1) == 1.0  # these do not learn


TRUTH = {1: 0.020, 2: 0.030, 4: 0.035, 8: 0.036, 16: 0.080}


def test_costs_follow_what_is_seen_whatever_they_were_thought_to_be() -> None:
    """And one pass in ten that waits for another program does not move them."""
    costs = LearnedCosts(SHAPE)
    noise = random.Random(0)
    for _ in range(3000):
        size = noise.choice(list(TRUTH))
        seconds = TRUTH[size] * noise.uniform(0.95, 1.05)
        costs.observe(size, seconds * 50 if noise.random() < 0.1 else seconds)
    for size, seconds in TRUTH.items():
        assert costs.of(size) / costs.of(1) == pytest.approx(seconds / TRUTH[1], rel=0.15)
        assert costs.of(size) == pytest.approx(seconds, rel=0.25)


def test_load_that_comes_and_goes_does_not_change_what_sizes_cost_beside_each_other() -> None:
    """Guesses are made at some times more than at others, and the load may differ between those."""
    costs = LearnedCosts(SHAPE)
    for load in (1.0, 5.0, 1.0, 8.0, 0.5):
        for size in [1] * 100 + [8] * 20:
            costs.observe(size, load * SHAPE[size])
        assert costs.of(8) / costs.of(1) == pytest.approx(2.0, rel=0.1)
        assert costs.of(16) / costs.of(1) == pytest.approx(3.0, rel=0.1)  # never seen


def test_no_pass_is_thought_cheaper_than_a_shorter_one() -> None:
    costs = LearnedCosts(SHAPE)
    for _ in range(200):
        costs.observe(1, 1.0)
        costs.observe(16, 0.1)
    values = [costs.of(tokens) for tokens in range(1, 40)]
    assert values == sorted(values)


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
