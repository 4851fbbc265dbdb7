"""What a model will take, against what its worker counts when it has the weights."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from fireside.engine import memory
from fireside.engine.backend import load_runner
from fireside.engine.memory import cache_bytes_per_token, memory_need
from fireside.engine.messages import WorkerConfig
from fireside.models.checkpoint import open_checkpoint
from fireside.models.local import open_model
from tests.engine.tiny_model import write_tiny_model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_token_takes_as_much_as_the_runner_s_cache_has_for_it(tmp_path: Path, dtype: str) -> None:
    path = write_tiny_model(tmp_path / "tiny")
    config = WorkerConfig(model=str(path), name="tiny", kv_cache_dtype=dtype, kv_cache_memory=1 << 20, threads=1)
    checkpoint = open_checkpoint(path)
    runner = load_runner(checkpoint, config, 512)
    per_token = cache_bytes_per_token([checkpoint.config], dtype)
    assert runner.num_blocks == (1 << 20) // per_token // runner.block_size


def test_weights_are_counted_in_what_they_are_computed_in(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny")
    weights = sum(map(prod, open_checkpoint(path).shapes.values()))
    model = open_model(path)
    for dtype, each in (("float32", 4), ("bfloat16", 2)):
        need = memory_need(model, dtype=dtype, cache_dtype="bfloat16", max_context=None)
        assert need.weights == memory._PROCESS_BYTES + each * weights
        assert need.context == 512
    stored = memory_need(model, dtype="stored", cache_dtype="bfloat16", max_context=100)
    assert stored.weights == memory._PROCESS_BYTES + model.size_bytes
    assert stored.context == 100
    assert stored.least == stored.weights + 100 * stored.per_token


def test_a_cache_gets_a_quarter_of_what_is_left_within_bounds() -> None:
    need = memory.MemoryNeed(weights=1000, per_token=10, context=4096)
    assert need.cache(1000 + 4 * 100_000) == 100_000
    assert need.cache(10**12) == memory.CACHE_TOKENS * 10
    assert need.cache(1000) == 2048 * 10  # what `least` counts with
