"""The engine under anything that may happen: random arrivals, cancels, priorities, and far too few blocks.

No block is ever lost, everybody ends in bounded time, and everybody gets exactly what they would have got alone.
"""

from __future__ import annotations

from functools import cache

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fireside.engine.engine import Engine
from fireside.engine.messages import FinishReason, GenerationRequest, SamplingParams
from tests.engine.driving import Driver, Result, run
from tests.engine.fake_runner import FakeRunner
from tests.engine.speculation.drafting import DRAFTS, check_draft_cache, guessing

MAX_CONTEXT = 32
VOCAB = 24
SHARED = tuple(range(20))  # prompts begin with a piece of it, so that they share blocks

prompts = st.builds(
    lambda shared, own: SHARED[:shared] + tuple(own),
    st.integers(0, len(SHARED)),
    st.lists(st.integers(0, 2), min_size=1, max_size=8),
)
sampling = st.builds(
    SamplingParams,
    max_tokens=st.integers(0, 12),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 3),
    stop_token_ids=st.sampled_from([(), (5,), (1, 2, 3, 4)]),
    min_tokens=st.sampled_from([0, 0, 3]),
    logprobs=st.sampled_from([None, None, 0, 2]),
    prompt_logprobs=st.sampled_from([None, None, None, 1]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.5]),
)


@cache
def alone(prompt_ids: tuple[int, ...], params_json: bytes) -> Result:
    """What the request gets from an engine of its own with plenty of blocks, in one chunk."""
    params = msgspec.json.decode(params_json, type=SamplingParams)
    engine = Engine(FakeRunner(num_blocks=16, vocab_size=VOCAB), max_context=MAX_CONTEXT, max_batch_tokens=64)
    return run(engine, GenerationRequest(id="alone", prompt_ids=prompt_ids, sampling=params))["alone"]


class CrowdedEngine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.requests: dict[str, GenerationRequest] = {}
        self.cancelled: set[str] = set()

    @initialize(
        num_blocks=st.integers(8, 14),
        max_batch_tokens=st.integers(1, 24),
        max_running=st.integers(1, 6),
        max_draft=st.sampled_from([0, 3, 15]),
        draft=st.sampled_from(sorted(DRAFTS)),
    )
    def start(self, num_blocks: int, max_batch_tokens: int, max_running: int, max_draft: int, draft: str) -> None:
        self.driver = Driver(
            guessing(
                max_draft,
                draft=draft,
                vocab=VOCAB,
                num_blocks=num_blocks,
                max_context=MAX_CONTEXT,
                max_batch_tokens=max_batch_tokens,
                max_running=max_running,
            )
        )

    @rule(prompt=prompts, params=sampling, priority=st.integers(-1, 1), copies=st.integers(1, 3))
    def submit(self, prompt: tuple[int, ...], params: SamplingParams, priority: int, copies: int) -> None:
        for _ in range(copies):
            name = f"r{len(self.requests)}"
            one = GenerationRequest(id=name, prompt_ids=prompt, sampling=params, priority=priority)
            self.requests[name] = one
            self.driver.submit(one)

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.driver.step()
            check_draft_cache(self.driver.engine)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        if not self.driver.results[name].ended:
            self.cancelled.add(name)
        self.driver.engine.cancel(name)
        self.driver.engine.check_integrity()

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        # Generous: even one after the other, each computed from nothing again for every token that it gains and at
        # one token a step, they would end in this time. Somebody who starves would not.
        results = self.driver.drain(max_steps=MAX_CONTEXT**2 * (1 + len(self.requests)))
        for name, result in results.items():
            one = self.requests[name]
            expected = alone(one.prompt_ids, msgspec.json.encode(one.sampling))
            if result.finish_reason is FinishReason.CANCELLED and name in self.cancelled:
                assert result.token_ids == expected.token_ids[: len(result.token_ids)]
                continue
            assert result.token_ids == expected.token_ids
            assert result.logprobs == expected.logprobs
            assert result.prompt_logprobs == expected.prompt_logprobs
            assert (result.finish_reason, result.stopped_by) == (expected.finish_reason, expected.stopped_by)


TestCrowdedEngine = CrowdedEngine.TestCase
TestCrowdedEngine.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)


@given(st.lists(st.tuples(prompts, sampling), min_size=2, max_size=6), st.permutations(range(6)))
@settings(max_examples=25, deadline=None)
def test_the_order_of_arrival_changes_nobodys_tokens(asked: list, order: list[int]):
    requests = [
        GenerationRequest(id=f"r{i}", prompt_ids=prompt, sampling=params) for i, (prompt, params) in enumerate(asked)
    ]

    def tokens(sequence: list[GenerationRequest]) -> dict[str, tuple[int, ...]]:
        engine = Engine(FakeRunner(9, vocab_size=VOCAB), max_context=MAX_CONTEXT, max_batch_tokens=12)
        return {name: result.token_ids for name, result in run(engine, *sequence).items()}

    assert tokens(requests) == tokens([requests[i] for i in order if i < len(requests)])
