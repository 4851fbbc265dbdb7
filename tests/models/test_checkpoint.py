"""Hugging Face folders: single, sharded, old, damaged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fireside.errors import ModelError
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from tests.models.families import random_ids, reference, reference_logits

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    reference("llama2").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit_weights(folder: Path, edit: dict[str, torch.Tensor | None]) -> None:
    """Replaces tensors; None removes one."""
    weights = load_file(folder / WEIGHTS) | edit
    save_file({name: value for name, value in weights.items() if value is not None}, folder / WEIGHTS)


@torch.no_grad()
def test_shards_are_one_model(tmp_path: Path) -> None:
    model = reference("qwen3")
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    input_ids = random_ids()
    decoder = load_decoder(open_checkpoint(tmp_path))
    torch.testing.assert_close(decoder(input_ids), reference_logits(model, input_ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stored_type_is_reported_and_widened(folder: Path, dtype: torch.dtype) -> None:
    weights = {name: value.to(dtype) for name, value in load_file(folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.weight_type == {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    decoder = load_decoder(checkpoint)
    assert decoder.dtype == torch.float32
    for name, stored in weights.items():
        assert torch.equal(decoder.get_parameter(name), stored.float())


def test_leftovers_of_old_checkpoints_are_passed_over(tmp_path: Path) -> None:
    model = reference("smollm2")
    model.save_pretrained(tmp_path)
    head = load_file(tmp_path / WEIGHTS)["model.embed_tokens.weight"].clone()
    edit_weights(tmp_path, {"lm_head.weight": head, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    decoder = load_decoder(open_checkpoint(tmp_path))
    assert decoder.lm_head is None


def test_weights_are_mapped_not_read(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    first, again = (checkpoint.tensor("model.norm.weight") for _ in range(2))
    assert isinstance(first, torch.Tensor)
    assert isinstance(again, torch.Tensor)
    assert first.data_ptr() == again.data_ptr()
    with pytest.raises(KeyError):
        checkpoint.tensor("model.nothing.weight")


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        ({"model.norm.weight": None}, "no tensor model.norm.weight"),
        ({"model.norm.weight": torch.ones(63)}, "model.norm.weight has shape (63,); its config calls for (64,)"),
        ({"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}, "does not use, such as model.layers.0.self_attn.q"),
        ({"model.norm.weight": torch.ones(64, dtype=torch.int8)}, "is I8, which is not supported; supported: F32"),
    ],
)
def test_a_wrong_tensor_is_named(folder: Path, edit: dict[str, torch.Tensor | None], complaint: str) -> None:
    edit_weights(folder, edit)
    with pytest.raises(ModelError, match=rf"model.*{re.escape(complaint)}"):
        open_checkpoint(folder)


def test_damaged_numbers_are_named(folder: Path) -> None:
    for bad in (float("nan"), float("-inf")):
        edit_weights(folder, {"model.norm.weight": torch.tensor([bad] + [1.0] * 63)})
        with pytest.raises(ModelError, match=r"model\.norm\.weight holds values that are not finite"):
            load_decoder(open_checkpoint(folder))


@pytest.mark.parametrize("kept", [0, 4, 100, 0.3, -1])
def test_a_truncated_file_is_named(folder: Path, kept: float) -> None:
    path = folder / WEIGHTS
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        open_checkpoint(folder)


def test_broken_config_or_index_is_named(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": [')
    with pytest.raises(ModelError, match=r"config\.json"):
        open_checkpoint(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"config\.json must hold a JSON object"):
        open_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    reference("llama2").save_pretrained(tmp_path, max_shard_size="60KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    missing = sorted(set(index["weight_map"].values()))[1]
    (tmp_path / missing).unlink()
    with pytest.raises(ModelError, match=re.escape(missing)):
        open_checkpoint(tmp_path)


def test_what_is_not_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.gguf does not exist"):
        open_checkpoint(tmp_path / "nothing.gguf")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelError, match="pickles"):
        open_checkpoint(tmp_path)
