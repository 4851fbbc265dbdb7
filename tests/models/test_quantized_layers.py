"""Layers over ggml's blocks against the same layers over the weights that the blocks stand for."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from fireside.errors import ModelError
from fireside.gguf import GGMLType, GGUFFile
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from fireside.models.quantized_layers import QuantizedEmbedding, QuantizedLinear
from tests.models.families import random_ids, reference
from tests.models.gguf_files import write_gguf
from tests.models.test_gguf_checkpoint import WIDE
from tests.models.test_loading_memory import write_model

QUANTIZED = [kind for kind in GGMLType if kind.name[0] == "Q"]


@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize("kind", QUANTIZED, ids=lambda kind: kind.name)
def test_forward_and_gradients_are_those_of_the_unfolded(kind: GGMLType, is_bf16: bool, tmp_path: Path) -> None:
    family, arch = ("qwen2", "qwen2") if is_bf16 else ("llama2", "llama")  # with biases and a tied head; without
    write_gguf(deepcopy(reference(family, **WIDE)), tmp_path / "m.gguf", kind.name, arch=arch)
    checkpoint, found = open_checkpoint(tmp_path / "m.gguf"), []
    for keep_quantized in (True, False):
        decoder = load_decoder(checkpoint, keep_quantized=keep_quantized)
        scale = decoder.model.layers[0].input_layernorm.weight  # below every layer: its gradient passes all of them
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            logits = decoder(random_ids())
        logits.square().mean().backward()
        found.append((logits, scale.grad))
        kept = [m for m in decoder.modules() if isinstance(m, QuantizedLinear | QuantizedEmbedding)]
        assert len(kept) == (2 * 7 + 1 + (not is_bf16)) * keep_quantized
        assert (decoder.dtype, decoder.device.type) == (torch.float32, "cpu")
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] is not None and float(found[0][1].abs().sum()) > 0
    assert torch.equal(found[0][1], found[1][1])


def test_damaged_blocks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(deepcopy(reference("llama2")), path, "Q8_0")
    info = GGUFFile(path).tensors["blk.1.ffn_up.weight"]
    with path.open("r+b") as file:
        file.seek(info.offset)
        file.write(b"\x00\x7e")  # the first block's scale: NaN
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds values that are not finite"):
        load_decoder(open_checkpoint(path), keep_quantized=True)


MEASURE = """
import re, sys
from pathlib import Path
import torch
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder

def own():
    return int(re.search(r"RssAnon:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

torch.set_num_threads(1)
ids = torch.arange(8)[None]
load_decoder(open_checkpoint(Path(sys.argv[1])), keep_quantized=True)(ids).sum().backward()
before = own()
decoder = load_decoder(open_checkpoint(Path(sys.argv[2])), keep_quantized=sys.argv[3] == "kept")
held = own() - before
states = decoder.hidden_states(ids, ids * 0, lambda layer, query, key, value: query)
states.sum().backward()
print(held, own() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what memory is the program's own")
def test_memory_is_not_taken_for_floats(tmp_path: Path) -> None:
    """In the file's own pages, which are not counted here, the weights are 38 MB; unfolded 134 MB and more.

    Of what loading freed again, glibc may keep its largest block off the system, 32 MB (DEFAULT_MMAP_THRESHOLD_MAX), as
    the machine's memory happens to lie: half of the unfolded stands between that and a matrix that was unfolded.
    """
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    write_model(small, vocab_size=64)
    write_model(large, vocab_size=65536)
    for kind, low, high in (("kept", 0, 67e6), ("unfolded", 130e6, 1e9)):
        command = [sys.executable, "-c", MEASURE, str(small), str(large), kind]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        held, after = map(int, result.stdout.split())
        assert low <= max(held, 0) <= high and low <= max(after, 0) <= high, (kind, held, after)
