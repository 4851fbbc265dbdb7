"""Loading never needs twice the model's memory, however the weights are packed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np

MEASURE = """
import re, resource, sys
from pathlib import Path
import torch
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage would count what the parent held before this program began
        return int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS

torch.set_num_threads(1)
load_decoder(open_checkpoint(Path(sys.argv[1])))  # the pages of the code that loads count from here on
checkpoint = open_checkpoint(Path(sys.argv[2]))
before = peak()
decoder = load_decoder(checkpoint)
print(peak() - before, sum(parameter.nbytes for parameter in decoder.parameters()))
"""


def write_model(path: Path, vocab_size: int) -> None:
    hidden, type_ = 512, gguf.GGMLQuantizationType.Q4_0
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(256)
    writer.add_head_count(8)
    writer.add_head_count_kv(8)
    writer.add_layer_norm_rms_eps(1e-5)

    def matrix(name: str, rows: int, columns: int) -> None:
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[type_]
        data = np.zeros((rows, columns // per_block * block_bytes), dtype=np.uint8)
        writer.add_tensor(name, data, raw_dtype=type_)

    matrix("token_embd.weight", vocab_size, hidden)
    writer.add_tensor("output_norm.weight", np.ones(hidden, dtype=np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(hidden, dtype=np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        matrix(f"blk.0.{name}.weight", hidden, hidden)
    matrix("blk.0.ffn_gate.weight", 256, hidden)
    matrix("blk.0.ffn_up.weight", 256, hidden)
    matrix("blk.0.ffn_down.weight", hidden, 256)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_peak_is_the_model_and_its_mapped_file(tmp_path: Path) -> None:
    """One matrix is nearly all of the model: the worst case for unpacking."""
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    write_model(small, vocab_size=64)
    write_model(large, vocab_size=65536)
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, model = map(int, result.stdout.split())
    assert model > 130_000_000
    assert peak > 0.7 * model  # the measure measures; memory that the imports freed is used again
    # Pages of the mapped file count as resident while they happen to be in memory. Unpacking by way of a second copy
    # would be twice the model and more.
    assert peak < 1.5 * model + large.stat().st_size
