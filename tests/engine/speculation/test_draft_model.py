"""A second model that guesses: its cache is right under anything that happens to blocks, and it stops when it is wrong.

`FakeRunner` reads its tokens back from the blocks: a draft that is the model itself is wrong as soon as one of its own
keys or values is missing, stale or somebody else's. So "every guess was right" says that its cache is right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.engine.engine import Engine
from fireside.engine.loading import load_engine
from fireside.engine.messages import WorkerConfig
from fireside.engine.runner import ForwardBatch
from fireside.engine.speculation.costs import PassCosts
from fireside.engine.speculation.draft_model import _CATCH_UP, DraftModel
from fireside.engine.speculation.lookup import Source
from fireside.engine.speculation.speculator import Speculator
from fireside.errors import ModelError
from tests.engine.driving import Driver, request, run
from tests.engine.fake_runner import FakeRunner
from tests.engine.speculation.drafting import TYPICAL, TYPICAL_DRAFT, accepted, check_draft_cache, drafted, guessing
from tests.engine.tiny_model import write_tiny_model
from tests.kernels.native import needs_compiler

VOCAB = 500  # so many that no text repeats itself: all guesses are the draft model's


def draft_runner(engine: Engine) -> Any:
    assert engine._speculator is not None and engine._speculator.draft_model is not None
    return engine._speculator.draft_model.runner


def every_guess_was_right(engine: Engine) -> bool:
    return drafted(engine, Source.DRAFT_MODEL) == accepted(engine, Source.DRAFT_MODEL) > 0


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(
        st.tuples(st.integers(0, 20), st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=6)),
        min_size=1,
        max_size=5,
    ),
    num_blocks=st.integers(12, 24),
    max_batch_tokens=st.integers(4, 32),
    arrivals=st.lists(st.integers(0, 8), min_size=5, max_size=5),
    draft=st.sampled_from(["right", "right", "moody"]),
)
def test_the_models_double_is_always_right(
    prompts: list[tuple[int, list[int]]], num_blocks: int, max_batch_tokens: int, arrivals: list[int], draft: str
) -> None:
    """With shared prefixes, few blocks (preemption), small steps, requests that come while others run. And whoever is
    wrong at times has a right cache all the same."""
    engine = guessing(
        5, draft=draft, vocab=VOCAB, num_blocks=num_blocks, max_context=48, max_batch_tokens=max_batch_tokens
    )
    driver = Driver(engine)
    for index, (shared, own) in enumerate(prompts):
        driver.submit(request(str(index), [*range(shared), *own], max_tokens=20, stop_token_ids=(7, 8, 9)))
        for _ in range(arrivals[index]):
            driver.step()
            check_draft_cache(engine)
    while engine.has_work:
        driver.step()
        check_draft_cache(engine)
    if draft == "right":
        assert drafted(engine, Source.DRAFT_MODEL) == accepted(engine, Source.DRAFT_MODEL)


def test_right_guesses_save_passes_and_each_token_is_computed_once() -> None:
    engine = guessing(4, draft="right", vocab=VOCAB)
    result = run(engine, request("a", range(30), max_tokens=50))["a"]
    assert every_guess_was_right(engine)
    assert len(result.steps) < 18
    assert draft_runner(engine).num_tokens <= 30 + 50


def test_after_a_cached_prefix_the_draft_model_goes_on_from_it() -> None:
    engine = guessing(4, draft="right", vocab=VOCAB)
    run(engine, request("a", range(40), max_tokens=10))
    before = draft_runner(engine).num_tokens
    result = run(engine, request("b", [*range(40), 99, 98], max_tokens=10))["b"]
    assert result.cached_tokens == 40
    assert every_guess_was_right(engine)
    assert draft_runner(engine).num_tokens - before <= 2 + 10


def test_a_prefix_that_the_draft_model_never_saw_is_computed_when_it_is_wanted() -> None:
    """As after a restart with a saved cache, or where a request ended before any guess was made for it."""
    engine = guessing(4, draft="right", vocab=VOCAB)
    run(engine, request("a", range(40), max_tokens=1))  # needs no guess
    assert draft_runner(engine).num_tokens == 0
    assert run(engine, request("b", [*range(40), 99], max_tokens=10))["b"].cached_tokens == 40
    assert every_guess_was_right(engine)


def test_a_long_text_is_caught_up_with_in_slices() -> None:
    engine = guessing(4, draft="right", vocab=VOCAB, num_blocks=300, max_context=1200, max_batch_tokens=1200)
    run(engine, request("a", [3] * 1000, max_tokens=30))
    assert max(map(sum, draft_runner(engine).passes)) <= _CATCH_UP
    assert every_guess_was_right(engine)


def test_wrong_guesses_end_soon() -> None:
    engine = guessing(7, draft="wrong", vocab=VOCAB, num_blocks=128, max_context=500)
    run(engine, request("a", [1, 2, 3], max_tokens=400))
    assert 0 < drafted(engine, Source.DRAFT_MODEL) < 30
    assert draft_runner(engine).num_passes < 40
    assert accepted(engine, Source.DRAFT_MODEL) == 0


def test_a_draft_model_that_is_no_faster_is_not_asked() -> None:
    runner, double = (FakeRunner(64, vocab_size=VOCAB) for _ in range(2))
    draft = DraftModel(double, PassCosts({1: 1.0, 2: 1.1}))
    engine = Engine(runner, max_context=200, speculator=Speculator(7, costs=TYPICAL, draft_model=draft))
    run(engine, request("a", [1, 2, 3], max_tokens=100))
    assert double.num_passes == 0


def test_in_a_crowd_the_draft_model_rests() -> None:
    engine = guessing(7, draft="right", vocab=VOCAB, num_blocks=400, max_batch_tokens=64)
    run(engine, *(request(str(index), [index, 2, 3], max_tokens=20) for index in range(32)))
    assert engine.stats.steps >= 20
    assert draft_runner(engine).num_passes <= 3  # a trial each


def test_nothing_is_guessed_after_a_stop_token() -> None:
    free = run(guessing(0, vocab=VOCAB), request("a", [1, 2], max_tokens=30))["a"].token_ids
    engine = guessing(15, draft="right", vocab=VOCAB)
    result = run(engine, request("a", [1, 2], max_tokens=30, stop_token_ids=(free[10],)))["a"]
    assert result.token_ids == free[:11]
    assert every_guess_was_right(engine)


def test_a_text_that_repeats_is_guessed_from_itself() -> None:
    engine = guessing(7, draft="right", vocab=1)
    run(engine, request("a", [0] * 20, max_tokens=100))
    assert accepted(engine, Source.LOOKUP) > accepted(engine, Source.DRAFT_MODEL)


class NarrowRunner(FakeRunner):
    """Knows fewer ids than the model, and more places for logits: padding differs between sizes of one family."""

    def forward(self, batch: ForwardBatch) -> torch.Tensor:
        assert batch.token_ids.max() < self.vocab_size
        return super().forward(batch)


@pytest.mark.parametrize("draft_vocab", [40, 60])
def test_embeddings_may_be_padded_differently(draft_vocab: int) -> None:
    def answered(speculator: Speculator | None) -> tuple[int, ...]:
        engine = Engine(FakeRunner(64, vocab_size=48), max_context=200, speculator=speculator)
        return run(engine, request("a", [1, 47, 3], max_tokens=60))["a"].token_ids

    draft = NarrowRunner(64, vocab_size=draft_vocab)
    assert answered(Speculator(7, costs=TYPICAL, draft_model=DraftModel(draft, TYPICAL_DRAFT))) == answered(None)
    assert draft.num_passes > 0


def pair(tmp_path: Path, **values: Any) -> WorkerConfig:
    model = write_tiny_model(tmp_path / "model", num_hidden_layers=3)
    draft = write_tiny_model(tmp_path / "draft", num_hidden_layers=1)
    return WorkerConfig(model=str(model), name="tiny", device="cpu", draft_model=str(draft), **values)


@needs_compiler
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_pair_of_models_says_what_the_larger_says(tmp_path: Path, temperature: float) -> None:
    config = pair(tmp_path)
    engine, info = load_engine(config)
    assert info.draft_model == config.draft_model
    speculator = engine._speculator
    assert speculator is not None and speculator.draft_model is not None
    speculator.costs = PassCosts({1: 1.0, 2: 1.01})  # tiny models cost nothing: let guessing pay
    speculator.draft_model.costs = PassCosts({1: 0.001, 2: 0.002})
    requests = [
        request(str(index), range(index, 90 + index), max_tokens=40, temperature=temperature, seed=index)
        for index in range(3)
    ]
    actual = run(engine, *requests)
    assert drafted(engine, Source.DRAFT_MODEL) > 0
    plain, _ = load_engine(WorkerConfig(model=config.model, name="tiny", device="cpu", speculative_tokens=0))
    for name, result in run(plain, *requests).items():
        assert actual[name].token_ids == result.token_ids


@needs_compiler
def test_a_model_is_its_own_best_draft(tmp_path: Path) -> None:
    """The native cache of the draft under real blocks: as right as the fake one's."""
    path = str(write_tiny_model(tmp_path))
    engine, _ = load_engine(WorkerConfig(model=path, name="tiny", device="cpu", draft_model=path))
    speculator = engine._speculator
    assert speculator is not None and speculator.draft_model is not None
    speculator.costs = PassCosts({1: 1.0, 2: 1.01})
    speculator.draft_model.costs = PassCosts({1: 0.001, 2: 0.002})
    for name in "ab":
        run(engine, request(name, range(90), max_tokens=60))
    assert every_guess_was_right(engine)


@needs_compiler
def test_both_caches_fit_the_memory_for_keys_and_values(tmp_path: Path) -> None:
    per_token_and_layer = 2 * 2 * 16 * 2  # keys and values, heads, head size, bytes of bfloat16
    config = pair(tmp_path, kv_cache_memory=64 * 4 * per_token_and_layer)
    engine, info = load_engine(config)
    assert info.num_blocks == draft_runner(engine).num_blocks == 4
    alone, _ = load_engine(WorkerConfig(model=config.model, name="t", device="cpu", kv_cache_memory=64 * 4 * 128))
    assert alone.runner.num_blocks == 5  # 64 tokens' room in four layers is 85's in three


@needs_compiler
def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    config = pair(tmp_path)
    assert config.draft_model is not None
    tokenizer = Path(config.draft_model) / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"A"', '"\\u4e00"'))
    with pytest.raises(
        ModelError, match=r"draft cannot be the draft model.*tiny \(1 ids differ; \d+ is '一' and not 'A'"
    ):
        load_engine(config)
    assert load_engine(WorkerConfig(**{**_fields(config), "speculative_tokens": 0}))[1].draft_model is None


@needs_compiler
def test_a_draft_model_that_cannot_run_is_refused(tmp_path: Path) -> None:
    config = pair(tmp_path)
    wide = write_tiny_model(tmp_path / "wide", "llama-wide-heads")
    with pytest.raises(ModelError, match=r"wide cannot be the draft model.*head of 24"):
        load_engine(WorkerConfig(**{**_fields(config), "draft_model": str(wide)}))


def _fields(config: WorkerConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__struct_fields__}
