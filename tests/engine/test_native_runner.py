"""The native runner against transformers, and its promise: a token's logits do not depend on its company."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from fireside.engine.native_runner import NativeRunner, native_shape
from fireside.engine.resources import available_cores
from fireside.errors import ModelError
from fireside.gguf import GGUFFile
from fireside.kernels.cpu.build import NativeUnavailable
from fireside.models.checkpoint import open_checkpoint
from tests.engine.paged_rows import Row, rows_for, run_step
from tests.kernels.native import needs_compiler
from tests.models.families import FAMILIES, random_ids, reference, reference_logits
from tests.models.gguf_files import write_gguf

pytestmark = needs_compiler
RUNNABLE = [name for name in FAMILIES if name != "llama-wide-heads"]  # heads of 24: see the last test
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 8, "head_dim": 32}  # K-quants: 256 a block


def native(
    path: Path,
    dtype: torch.dtype | None = torch.float32,
    blocks: int = 64,
    threads: int = 2,
    cache_dtype: torch.dtype | None = None,
) -> NativeRunner:
    checkpoint = open_checkpoint(path)
    context = checkpoint.config.max_position_embeddings
    cache_dtype = cache_dtype or (torch.float32 if dtype == torch.float32 else torch.bfloat16)
    return NativeRunner(
        checkpoint, num_blocks=blocks, max_context=context, threads=threads, dtype=dtype, cache_dtype=cache_dtype
    )


def saved(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def logits_in_chunks(runner: NativeRunner, rows: list[Row], seed: int) -> Tensor:
    """All rows to their ends, in chunks of random sizes, any of them absent from any step."""
    sizes = random.Random(seed)
    while unfinished := [row for row in rows if row.done < len(row.ids)]:
        work = [(row, min(sizes.choice([0, 1, 1, 3, 17]), len(row.ids) - row.done)) for row in unfinished]
        if work := [(row, count) for row, count in work if count]:
            run_step(runner, work)
    return torch.stack([torch.cat(row.logits) for row in rows])


@pytest.mark.parametrize("family", RUNNABLE)
def test_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    model = reference(family)
    sequences = random_ids(rows=4)
    runner = native(saved(model, tmp_path))
    actual = logits_in_chunks(runner, rows_for(runner, sequences), seed=1)
    torch.testing.assert_close(actual, reference_logits(model, sequences), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "cache_dtype"),
    [
        *((kind, None) for kind in ("F32", "BF16", "F16", "Q4_0", "Q4_1", "Q5_1", "Q8_0", "Q4_K", "Q6_K", "Q2_K")),
        ("Q4_1", torch.float32),
        ("Q4_1", torch.int8),
    ],
)
def test_a_token_does_not_depend_on_its_company(kind: str, cache_dtype: torch.dtype | None, tmp_path: Path) -> None:
    """To the bit, in every type of weight: whole prompt alone, in chunks in a crowd, decoded; on 1, 2 and 3 threads."""
    model = reference("qwen3", **WIDE, max_position_embeddings=1024)
    path = tmp_path / "tiny.gguf"
    write_gguf(model, path, kind, arch="qwen3")
    sequences = random_ids(rows=6, tokens=600)  # attention in three partitions
    alone = native(path, dtype=None, threads=1, cache_dtype=cache_dtype)
    row = rows_for(alone, sequences[:1])[0]
    run_step(alone, [(row, 600)])
    crowd = native(path, dtype=None, blocks=256, threads=2, cache_dtype=cache_dtype)
    rows = rows_for(crowd, sequences, seed=5)
    company = logits_in_chunks(crowd, rows, seed=2)
    assert torch.equal(row.logits[0], company[0])
    decoded = native(path, dtype=None, threads=3, cache_dtype=cache_dtype)
    slow = rows_for(decoded, sequences[:1], seed=9)[0]
    run_step(decoded, [(slow, 580)])
    while slow.done < 600:
        run_step(decoded, [(slow, 1)])
    assert torch.equal(row.logits[0], torch.cat(slow.logits))


def test_threads_without_a_processor_are_left_out_and_change_nothing(tmp_path: Path) -> None:
    """Far more threads than cores: the pool runs fewer and fewer of them, between steps like these."""
    path = saved(reference("smollm2", hidden_size=512, intermediate_size=2048, max_position_embeddings=1024), tmp_path)
    ids = random_ids(rows=1, tokens=320)
    logits = []
    for threads in (1, 4 * available_cores()):
        runner = native(path, threads=threads)
        row = rows_for(runner, ids)[0]
        run_step(runner, [(row, 20)])
        while row.done < 320:
            run_step(runner, [(row, 1)])
        logits.append(torch.cat(row.logits))
    assert torch.equal(*logits)


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "Q6_K"])
def test_quantised_weights_stay_close_to_float32(kind: str, tmp_path: Path) -> None:
    """Weights are exact, activations are int8 per token with the errors of outliers: the logits barely move."""
    model = reference("smollm2", **WIDE, max_position_embeddings=256)
    path = tmp_path / "tiny.gguf"
    write_gguf(model, path, kind)
    sequences = random_ids(rows=2, tokens=100)
    runner = native(path, dtype=None)
    assert runner.dtype == kind
    rows = rows_for(runner, sequences)
    run_step(runner, [(row, 100) for row in rows])
    actual = torch.stack([torch.cat(row.logits) for row in rows])
    expected = reference_logits(model, sequences)
    error = ((actual - expected).square().mean().sqrt() / expected.std()).item()
    assert error < 0.08, error  # random weights this large amplify every rounding; a wrong model is past 1


@pytest.mark.parametrize(("cache_dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03), (torch.int8, 0.06)])
@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_what_another_sequence_left_in_a_block_is_never_seen(
    cache_dtype: torch.dtype, error: float, chunk: int, tmp_path: Path
) -> None:
    """A block keeps the values of its last owner, and 0 times NaN is NaN: positions beyond the end are not touched."""
    model = reference("smollm2")
    runner = native(saved(model, tmp_path), blocks=1, cache_dtype=cache_dtype)
    poison = random_ids(rows=1, tokens=16)
    for tensor in runner.cache_tensors.values():
        tensor.fill_(float("nan") if tensor.is_floating_point() else 127)
    row = Row(poison[0].tolist(), [0])
    while row.done < 16:
        run_step(runner, [(row, min(chunk, 16 - row.done))])
    expected = reference_logits(model, poison)[0]
    assert (torch.cat(row.logits) - expected).abs().max() < error * expected.abs().max()


@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("damaged", [1, 256, 257, 512])
def test_what_is_no_number_is_not_passed_over(damaged: int, cache_dtype: torch.dtype, tmp_path: Path) -> None:
    """Whole partitions of attention may hold no number: they must not be taken for unseen."""
    model = reference("smollm2", num_hidden_layers=1, max_position_embeddings=1024)
    with torch.no_grad():  # the key of token 7, and of no other, overflows
        embedding = model.model.embed_tokens.weight
        embedding[:, 0] = 0
        embedding[7] = torch.eye(embedding.shape[1])[0]
        model.model.layers[0].self_attn.k_proj.weight[:, 0] = 3e38
    ids = random_ids(rows=1, tokens=600)
    ids[ids == 7] = 8
    ids[0, :damaged] = 7
    runner = native(saved(model, tmp_path), cache_dtype=cache_dtype)
    row = rows_for(runner, ids)[0]
    run_step(runner, [(row, 590)])
    run_step(runner, [(row, 10)])
    logits = torch.cat(row.logits)
    assert logits[damaged:].isnan().all()


def test_a_shape_without_kernels_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = saved(reference("llama-wide-heads"), tmp_path)
    assert "24" in (native_shape(open_checkpoint(path).config).unsupported() or "")
    with pytest.raises(NativeUnavailable, match="head of 24"):
        native(path)


@pytest.mark.parametrize(("kind", "at"), [("F16", 0), ("Q4_1", 0), ("Q4_1", 2), ("Q6_K", 208)])
def test_weights_that_are_no_numbers_are_refused_by_name(kind: str, at: int, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(reference("smollm2", **WIDE), path, kind)
    raw = bytearray(path.read_bytes())
    start = GGUFFile(path).tensors["blk.1.attn_v.weight"].offset + at
    raw[start : start + 2] = b"\x00\x7e"  # NaN: a weight, a block's scale, its minimum
    path.write_bytes(raw)
    with pytest.raises(ModelError, match=r"tiny\.gguf is damaged: tensor model\.layers\.1\.self_attn\.v_proj"):
        native(path, dtype=None)


def test_rotary_tables_are_no_longer_than_the_cache(tmp_path: Path) -> None:
    """Some models claim a million positions, and damaged ones a thousand times more."""
    checkpoint = open_checkpoint(saved(reference("smollm2"), tmp_path))
    runner = NativeRunner(checkpoint, num_blocks=4, max_context=1 << 30, threads=1)
    run_step(runner, [(Row(list(range(64)), [0, 1, 2, 3]), 64)])


SCARCE = """
import resource, sys
from pathlib import Path
import torch
from fireside.engine.native_runner import NativeRunner
from fireside.engine.runner import ForwardBatch
from fireside.kernels.cpu.build import NativeUnavailable
from fireside.models.checkpoint import open_checkpoint

def limit(headroom):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + headroom, resource.RLIM_INFINITY))

def forward(runner, tokens):
    def ints(values):
        return torch.tensor(values, dtype=torch.int32)
    return runner.forward(ForwardBatch(
        ints([7] * tokens), ints(range(tokens)), ints([0, tokens]), ints([tokens]), ints([list(range(64))]), ints([0])
    ))

checkpoint = open_checkpoint(Path(sys.argv[1]))
runner = NativeRunner(checkpoint, num_blocks=64, max_context=1024, threads=2)
expected = forward(runner, 1)
failures = 0
for headroom in range(8 << 20, 256 << 20, 16 << 20):  # the step wants 64 MiB at a time, past what malloc keeps
    limit(headroom)
    try:
        forward(runner, 1024)
    except MemoryError:
        failures += 1
limit(1 << 40)
assert failures, "memory was never scarce"
assert torch.equal(forward(runner, 1), expected)

limit(1 << 30)
try:
    NativeRunner(checkpoint, num_blocks=64, max_context=1024, threads=2000)
except NativeUnavailable as reason:
    print(reason)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits and measures an address space as Linux does")
def test_without_memory_a_step_fails_and_leaves_the_threads_in_order(tmp_path: Path) -> None:
    path = saved(reference("smollm2", intermediate_size=16384, max_position_embeddings=1024), tmp_path)
    command = [sys.executable, "-c", SCARCE, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (0, "2000 threads could not be started\n"), result.stderr
