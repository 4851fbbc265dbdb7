"""Saved folders, read back by transformers and by us."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fireside.errors import ModelError
from fireside.models import saving
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from fireside.models.saving import save_pretrained
from tests.models.families import FAMILIES, ours, random_ids, reference
from tests.models.gguf_files import write_gguf


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_transformers_loads_it_unchanged_and_so_do_we(family: str, tmp_path: Path) -> None:
    decoder = ours(reference(family), tmp_path / "theirs")
    save_pretrained(decoder, tmp_path / "ours")
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    assert model.dtype == torch.float32
    input_ids = random_ids()
    torch.testing.assert_close(model(input_ids).logits, decoder(input_ids), rtol=1e-4, atol=1e-4)
    again = load_decoder(open_checkpoint(tmp_path / "ours"))
    assert again.config == decoder.config
    for name, weights in decoder.named_parameters():
        assert torch.equal(again.get_parameter(name), weights), name


@torch.no_grad()
def test_a_gguf_becomes_a_folder(tmp_path: Path) -> None:
    """Llama 3's scaling, a table in the GGUF, must still reach transformers."""
    write_gguf(deepcopy(reference("llama3")), tmp_path / "m.gguf", "Q8_0", rope_factors=[1, 1, 2, 3, 8, 8, 8, 8])
    decoder = load_decoder(open_checkpoint(tmp_path / "m.gguf"))
    save_pretrained(decoder, tmp_path / "saved")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    input_ids = random_ids()
    torch.testing.assert_close(model(input_ids).logits, decoder(input_ids), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_shards_dtype_and_companions(tmp_path: Path) -> None:
    decoder = ours(reference("qwen2"), tmp_path / "theirs")
    save_pretrained(
        decoder,
        tmp_path / "ours",
        dtype=torch.bfloat16,
        max_shard_bytes=30_000,
        extra_config={"eos_token_id": [5, 6]},
        files={"generation_config.json": '{"eos_token_id": [5, 6]}', "tokenizer.json": b"{}"},
    )
    shards = sorted(path.name for path in (tmp_path / "ours").glob("*.safetensors"))
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert all((tmp_path / "ours" / shard).stat().st_size < 32_000 for shard in shards)
    assert (tmp_path / "ours" / "tokenizer.json").read_bytes() == b"{}"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert model.dtype == torch.bfloat16
    assert model.config.eos_token_id == [5, 6]
    for name, weights in load_decoder(open_checkpoint(tmp_path / "ours"), torch.bfloat16).named_parameters():
        assert torch.equal(weights, decoder.get_parameter(name).bfloat16())


def test_an_existing_folder_is_kept_unless_told(tmp_path: Path) -> None:
    decoder = ours(reference("smollm2"), tmp_path / "theirs")
    target = tmp_path / "target"
    target.mkdir()
    (target / "keep.txt").write_text("mine")
    with pytest.raises(ModelError, match="target exists already"):
        save_pretrained(decoder, target)
    assert (target / "keep.txt").read_text() == "mine"
    save_pretrained(decoder, target, overwrite=True)
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target", "theirs"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> None:
    decoder = ours(reference("smollm2"), tmp_path / "theirs")
    target = tmp_path / "target"
    if overwrite:
        save_pretrained(decoder, target)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(ModelError, match=r"cannot be written to .*target.*No space left on device"):
        save_pretrained(decoder, target, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    if overwrite:
        load_decoder(open_checkpoint(target))


def test_companions_stay_inside(tmp_path: Path) -> None:
    decoder = ours(reference("smollm2"), tmp_path / "theirs")
    with pytest.raises(ValueError, match="not the name of a file"):
        save_pretrained(decoder, tmp_path / "ours", files={"../escape": b""})


def test_config_says_the_same_by_old_and_new_names(tmp_path: Path) -> None:
    save_pretrained(ours(reference("llama3"), tmp_path / "theirs"), tmp_path / "ours")
    raw = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert raw["rope_scaling"].items() <= raw["rope_parameters"].items()
    assert raw["rope_parameters"]["rope_theta"] == raw["rope_theta"]
