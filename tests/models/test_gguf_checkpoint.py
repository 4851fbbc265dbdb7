"""GGUF files written by the `gguf` package, loaded by us, against transformers with the same weights."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from fireside.errors import ModelError
from fireside.gguf import GGMLType, GGUFFile
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from fireside.models.quantization import QuantizedTensor
from tests.models.families import random_ids, reference, reference_logits
from tests.models.gguf_files import write_gguf

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "head_dim": 32}  # K-quants: 256 a block


@pytest.mark.parametrize("kind", list(GGMLType), ids=lambda kind: kind.name)
@torch.no_grad()
def test_every_type_loads_and_computes_what_it_stands_for(kind: GGMLType, tmp_path: Path) -> None:
    model = deepcopy(reference("llama2", **WIDE))
    path = tmp_path / "model.gguf"
    write_gguf(model, path, kind.name)
    checkpoint = open_checkpoint(path)
    assert checkpoint.weight_type == kind.name
    decoder = load_decoder(checkpoint)
    for name, weights in model.named_parameters():
        assert torch.equal(decoder.get_parameter(name), weights), name
        stored = checkpoint.tensor(name)
        assert isinstance(stored, QuantizedTensor) == (weights.dim() == 2 and "F" not in kind.name)
    input_ids = random_ids()
    torch.testing.assert_close(decoder(input_ids), reference_logits(model, input_ids), rtol=1e-4, atol=1e-4)


def llama3_factors(head_dim: int, rope: dict[str, Any]) -> list[float]:
    """What llama.cpp's converter writes into rope_freqs.weight for Llama 3.1, from its definition by wavelength."""
    factors = []
    for pair in range(head_dim // 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (2 * pair / head_dim)
        turns = rope["original_max_position_embeddings"] / wavelength
        if turns > rope["high_freq_factor"]:
            factors.append(1.0)
        elif turns < rope["low_freq_factor"]:
            factors.append(rope["factor"])
        else:
            smooth = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return factors


@pytest.mark.parametrize(
    ("family", "arch", "metadata"),
    [
        ("llama-linear", "llama", {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}),
        ("llama-linear", "llama", {"rope.scale_linear": 2.0}),
        ("llama-biases", "llama", {}),
        ("llama-wide-heads", "llama", {}),
        ("smollm2", "llama", {}),
        (
            "llama-yarn",
            "llama",
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
        ),
        ("mistral", "llama", {"attention.sliding_window": 8}),
        ("mistral-no-window", "llama", {}),
        ("qwen2", "qwen2", {}),
        ("qwen3", "qwen3", {}),
    ],
)
@torch.no_grad()
def test_every_family(family: str, arch: str, metadata: dict[str, Any], tmp_path: Path) -> None:
    model = deepcopy(reference(family))
    write_gguf(model, tmp_path / "model.gguf", "Q8_0", arch=arch, metadata=metadata)
    decoder = load_decoder(open_checkpoint(tmp_path / "model.gguf"))
    assert decoder.config.tie_word_embeddings == model.config.tie_word_embeddings
    input_ids = random_ids()
    torch.testing.assert_close(decoder(input_ids), reference_logits(model, input_ids), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_llama3_scaling_by_its_tensor(tmp_path: Path) -> None:
    model = deepcopy(reference("llama3"))
    factors = llama3_factors(16, model.config.rope_parameters)
    assert any(1.0 < factor < 8.0 for factor in factors)  # some pair is blended, not only kept or divided
    write_gguf(model, tmp_path / "model.gguf", rope_factors=factors)
    decoder = load_decoder(open_checkpoint(tmp_path / "model.gguf"))
    input_ids = random_ids()
    torch.testing.assert_close(decoder(input_ids), reference_logits(model, input_ids), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    write_gguf(deepcopy(reference("llama2")), path, "Q4_1")
    return path


@pytest.mark.parametrize("kept", [0, 3, 40, 0.1, 0.5, -1])
def test_a_truncated_file_is_refused_by_name(whole: Path, tmp_path: Path, kept: float) -> None:
    data = whole.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(ModelError, match=r"cut\.gguf"):
        open_checkpoint(path)


def test_damaged_weights_are_refused_by_name(whole: Path, tmp_path: Path) -> None:
    info = GGUFFile(whole).tensors["blk.1.ffn_up.weight"]
    data = bytearray(whole.read_bytes())
    data[info.offset : info.offset + 2] = b"\x00\x7e"  # a scale that is not a number
    path = tmp_path / "flipped.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"flipped\.gguf.*model\.layers\.1\.mlp\.up_proj\.weight.*not finite"):
        load_decoder(open_checkpoint(path))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b"blk.1.ffn_up.weight", b"blk.1.ffn_upp.weigh", r"no tensor blk\.1\.ffn_up\.weight"),
        (b"llama.embedding_length", b"llama.embedding_lengtj", "no embedding_length"),
        (b"general.architecture", b"general.architecturf", "architecture '' is not supported; supported: llama"),
    ],
)
def test_a_file_with_something_renamed_is_refused(
    whole: Path, tmp_path: Path, old: bytes, new: bytes, complaint: str
) -> None:
    data = whole.read_bytes()
    assert len(old) == len(new)
    assert data.count(old) == 1
    path = tmp_path / "renamed.gguf"
    path.write_bytes(data.replace(old, new))
    with pytest.raises(ModelError, match=rf"renamed\.gguf.*{complaint}"):
        open_checkpoint(path)


def test_shapes_must_be_those_of_the_metadata(tmp_path: Path) -> None:
    model = deepcopy(reference("llama2"))
    model.config.intermediate_size = 128
    write_gguf(model, tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_gate\.weight has shape \(96, 64\).*calls for \(128, 64\)"):
        open_checkpoint(tmp_path / "model.gguf")


def test_views_are_of_the_map_and_not_copies(whole: Path) -> None:
    checkpoint = open_checkpoint(whole)
    first, again = checkpoint.tensor("model.norm.weight"), checkpoint.tensor("model.norm.weight")
    assert isinstance(first, torch.Tensor)
    assert isinstance(again, torch.Tensor)
    assert first.data_ptr() == again.data_ptr()
    packed = checkpoint.tensor("model.layers.0.mlp.up_proj.weight")
    assert isinstance(packed, QuantizedTensor)
    assert packed.data.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
