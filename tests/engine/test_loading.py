"""From a config to an engine: which backend, with what memory, and what is said when it cannot be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fireside.engine import backend, loading
from fireside.engine.loading import load_engine
from fireside.engine.messages import WorkerConfig
from fireside.engine.native_runner import NativeRunner
from fireside.errors import ModelError
from fireside.kernels.cpu.build import NativeUnavailable
from fireside.models.checkpoint import open_checkpoint
from tests.engine.driving import request, run
from tests.engine.tiny_model import write_tiny_model
from tests.kernels.native import needs_compiler
from tests.models.families import reference
from tests.models.gguf_files import write_gguf
from tests.models.test_adapter import edit, write_adapter


def config(path: Path, **values: Any) -> WorkerConfig:
    return WorkerConfig(model=str(path), name="tiny", device="cpu", **values)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> None:
        raise NativeUnavailable("there is no C++ compiler")

    monkeypatch.setattr(backend, "load_library", unavailable)


@needs_compiler
def test_the_native_backend_keeps_weights_as_they_are_stored(tmp_path: Path) -> None:
    engine, info = load_engine(config(write_tiny_model(tmp_path)))
    assert (info.backend, info.device, info.dtype, info.max_context) == ("native", "cpu", "F32", 512)
    assert info.num_blocks * info.block_size >= 512
    assert torch.get_num_threads() == 1  # PyTorch's threads would spin on the cores that the native step wants
    result = run(engine, request("a", range(40), max_tokens=5))["a"]
    assert len(result.token_ids) == 5


def test_without_a_compiler_pytorch_serves_and_the_log_says_why(
    tmp_path: Path, no_compiler: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        engine, info = load_engine(config(write_tiny_model(tmp_path)))
    assert (info.backend, info.dtype) == ("torch", "float32")
    assert [record.message for record in caplog.records if "no C++ compiler" in record.message]
    assert len(run(engine, request("a", range(40), max_tokens=5))["a"].token_ids) == 5


@needs_compiler
def test_both_backends_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_model(tmp_path)
    prompt = request("a", range(100), max_tokens=20)
    native = run(load_engine(config(path, dtype="float32"))[0], prompt)["a"]
    monkeypatch.setattr(backend, "load_library", lambda: (_ for _ in ()).throw(NativeUnavailable("off")))
    portable = run(load_engine(config(path, dtype="float32"))[0], prompt)["a"]
    assert native.token_ids == portable.token_ids


@needs_compiler
def test_a_shape_without_kernels_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, info = load_engine(config(write_tiny_model(tmp_path, "llama-wide-heads")))
    assert info.backend == "torch"
    assert "head of 24" in caplog.text


def test_settings_bound_context_and_memory(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    per_token = 2 * 2 * 2 * 16 * 2  # keys and values, layers, heads, head size, bytes of bfloat16
    _, info = load_engine(config(path, max_context=100, kv_cache_memory=64 * per_token))
    if info.backend == "native":
        assert (info.num_blocks, info.max_context) == (4, 64)  # what the blocks hold, less than what was asked
    _, info = load_engine(config(path, max_context=100))
    assert info.max_context == 100


@needs_compiler
@pytest.mark.parametrize(("kind", "bytes_per_head"), [("float32", 64), ("bfloat16", 32), ("int8", 16 + 4)])
def test_the_cache_holds_what_its_type_lets_it(kind: str, bytes_per_head: int, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    memory = 10 * 16 * 2 * 2 * 2 * bytes_per_head  # blocks, tokens, keys and values, layers, heads
    engine, info = load_engine(config(path, kv_cache_dtype=kind, kv_cache_memory=memory))
    assert info.num_blocks == 10
    assert sum(tensor.nbytes for tensor in engine.runner.cache_tensors.values()) == memory
    assert len(run(engine, request("a", range(40), max_tokens=5))["a"].token_ids) == 5


def test_a_type_of_cache_that_pytorch_lacks_is_refused(
    tmp_path: Path, no_compiler: None, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ModelError, match=r"kv_cache_dtype is set to int8.*no C\+\+ compiler"):
        load_engine(config(write_tiny_model(tmp_path), kv_cache_dtype="int8"))
    assert "serves instead" not in caplog.text


@needs_compiler
def test_the_cache_takes_a_share_of_what_the_weights_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_model(tmp_path)
    weights = sum(tensor.nbytes for tensor in load_file(path / "model.safetensors").values())
    per_block = 2 * 2 * 2 * 16 * 2 * 16  # as above, 16 tokens
    monkeypatch.setattr(backend, "available_memory", lambda: weights + 4 * 10 * per_block)
    assert load_engine(config(path))[1].num_blocks == 10
    monkeypatch.setattr(backend, "available_memory", lambda: weights)
    with pytest.raises(ModelError, match=r"memory for 0 tokens .* beside the weights"):
        load_engine(config(path))


@needs_compiler
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_K", "Q3_K", "Q2_K"])
def test_weights_are_counted_as_they_are_packed(kind: str, tmp_path: Path) -> None:
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "head_dim": 32}
    model = reference("qwen3", **shape, tie_word_embeddings=True)
    write_gguf(model, tmp_path / "model.gguf", kind, arch="qwen3")
    checkpoint = open_checkpoint(tmp_path / "model.gguf")
    runner = NativeRunner(checkpoint, num_blocks=4, max_context=64, threads=1)
    assert checkpoint.config.tie_word_embeddings  # so that a step reads all weights
    assert backend._weight_bytes(checkpoint, None) == pytest.approx(runner.weight_bytes, rel=0.03)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kv_cache_memory": 1000}, r"memory for \d+ tokens .* raise kv_cache_memory"),
        ({"kv_cache_memory": 1 << 50}, "lower kv_cache_memory"),
        ({"device": "cuda"}, "no GPU here"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    if values.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    path = write_tiny_model(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_engine(WorkerConfig(model=str(path), name="tiny", **{"device": "cpu", **values}))


@pytest.mark.parametrize("draft", [None, "llama-wide-heads"])
def test_no_guesses_where_rounding_depends_on_the_batch(
    draft: str | None,
    tmp_path: Path,
    no_compiler: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor passes to learn what guesses would cost, nor an error about a draft model that would not be used."""
    monkeypatch.setattr(loading, "first_costs", lambda runner: pytest.fail("a pass for nothing"))
    draft_model = None if draft is None else str(write_tiny_model(tmp_path / "draft", draft))
    engine, info = load_engine(config(write_tiny_model(tmp_path / "model"), draft_model=draft_model))
    assert info.draft_model is None and ("draft_model is not used" in caplog.text) == (draft is not None)
    run(engine, request("a", [5] * 40, max_tokens=20))
    assert engine.stats.drafted_tokens == {} and engine.stats.steps == 20


def test_quantized_needs_the_native_kernels(tmp_path: Path, no_compiler: None) -> None:
    with pytest.raises(ModelError, match=r"dtype is set to quantized.*no C\+\+ compiler"):
        load_engine(config(write_tiny_model(tmp_path), dtype="quantized"))


@pytest.mark.parametrize("backend_name", [pytest.param("native", marks=needs_compiler), "torch"])
def test_an_adapter_is_run_with_its_base(backend_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the same weights in a model of their own."""
    if backend_name == "torch":
        monkeypatch.setattr(backend, "load_library", lambda: (_ for _ in ()).throw(NativeUnavailable("off")))
    base = write_tiny_model(tmp_path / "base")
    write_adapter(base, tmp_path / "tuned").merge_and_unload().save_pretrained(tmp_path / "merged")
    edit(tmp_path / "tuned", base_model_name_or_path="base")
    prompt = request("a", range(100), max_tokens=20)
    engine, info = load_engine(config(tmp_path / "tuned", models_dir=str(tmp_path)))
    merged, plain = (load_engine(config(tmp_path / name))[0] for name in ("merged", "base"))
    found = run(engine, prompt)["a"].token_ids
    assert found == run(merged, prompt)["a"].token_ids != run(plain, prompt)["a"].token_ids
    assert info.backend == backend_name
