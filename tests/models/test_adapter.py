"""Adapters that PEFT wrote, opened as models: against PEFT itself, and against strangers' files."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from fireside.errors import ModelError
from fireside.models.adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from fireside.models.digest import content_digest
from fireside.models.local import DamagedModel, LocalModel, list_models, open_model, resolve_model
from fireside.models.quantization import QuantizedTensor
from fireside.settings import Settings
from tests.engine.tiny_model import write_tiny_model
from tests.models.families import random_ids, reference
from tests.models.gguf_files import write_gguf


def write_adapter(base: Path, folder: Path, **config: Any) -> PeftModel:
    """By PEFT, over the model in `base`, with a random B, so that the update does something."""
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager", dtype=torch.float32)
    config = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], **config}
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    peft.save_pretrained(folder)
    return peft.eval()


def edit(folder: Path, **values: Any) -> None:
    path = folder / ADAPTER_CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with the model "base" and its adapter "tuned"."""
    write_tiny_model(tmp_path / "models" / "base", "llama3")
    write_adapter(tmp_path / "models" / "base", tmp_path / "models" / "tuned")
    edit(tmp_path / "models" / "tuned", base_model_name_or_path="base")
    return tmp_path / "models"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"r": 8, "use_rslora": True, "target_modules": "all-linear", "init_lora_weights": "gaussian"},
        {"target_modules": ["v_proj"], "lora_dropout": 0.1},
        {"layers_to_transform": [1]},
        {"target_modules": r".*\.0\..*(k|up)_proj"},
    ],
    ids=str,
)
@torch.no_grad()
def test_logits_are_those_of_peft(config: dict[str, Any], tmp_path: Path) -> None:
    reference("llama3").save_pretrained(tmp_path / "base")
    peft = write_adapter(tmp_path / "base", tmp_path / "adapter", **config)  # which names its base by its path
    decoder = load_decoder(open_checkpoint(tmp_path / "adapter"))
    expected = peft(random_ids()).logits
    torch.testing.assert_close(decoder(random_ids()), expected, rtol=1e-4, atol=1e-4)
    with peft.disable_adapter():
        assert not torch.allclose(peft(random_ids()).logits, expected, atol=0.1)


@torch.no_grad()
def test_over_a_quantized_base_what_is_updated_becomes_bfloat16(tmp_path: Path) -> None:
    model = deepcopy(reference("llama3"))
    write_gguf(model, tmp_path / "base.gguf", "Q5_0")  # and gives `model` what the file holds
    model.save_pretrained(tmp_path / "unfolded")
    peft = write_adapter(tmp_path / "unfolded", tmp_path / "adapter")
    edit(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base.gguf"))
    merged = peft.merge_and_unload()
    checkpoint = open_checkpoint(tmp_path / "adapter")
    counted: dict[str, int] = {}
    for name, expected in merged.named_parameters():
        found = checkpoint.tensor(name)
        if "q_proj" in name or "down_proj" in name:
            assert isinstance(found, torch.Tensor) and found.dtype == torch.bfloat16
            torch.testing.assert_close(found, expected.bfloat16(), rtol=1e-2, atol=1e-3)
        else:
            assert isinstance(found, QuantizedTensor) == (expected.dim() == 2)
        kind = found.type.name if isinstance(found, QuantizedTensor) else "BF16" if expected.dim() == 2 else "F32"
        counted[kind] = counted.get(kind, 0) + expected.numel()
    assert checkpoint.types == counted  # by it the engine leaves room


def test_it_is_a_model_whose_text_is_its_base_s_unless_it_has_its_own(models: Path) -> None:
    settings = Settings(home=models.parent)
    base, tuned = list_models(settings.home)
    assert isinstance(base, LocalModel) and isinstance(tuned, LocalModel)
    assert (tuned.name, tuned.format, tuned.base) == ("tuned", "adapter", base)
    assert tuned.size_bytes == (models / "tuned" / ADAPTER_WEIGHTS_FILE).stat().st_size < base.size_bytes / 10
    assert (tuned.config, tuned.chat_template, tuned.generation) == (base.config, base.chat_template, base.generation)
    assert tuned.load_tokenizer().to_json() == base.load_tokenizer().to_json()
    assert resolve_model("tuned", settings) == tuned
    assert resolve_model(str(models / "tuned"), settings).path == tuned.path
    (models / "tuned" / "generation_config.json").write_text(json.dumps({"temperature": 0.5, "eos_token_id": 3}))
    (models / "tuned" / "chat_template.jinja").write_text("{{ messages }}")
    shutil.copy(models / "base" / "tokenizer.json", models / "tuned")
    (models / "tuned" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_start|>"}))
    own = resolve_model("tuned", settings)
    assert own.chat_template == "{{ messages }}"
    assert (own.generation.temperature, own.generation.eos_token_ids) == (0.5, (3,))
    assert own.load_tokenizer().eos_token_id != base.load_tokenizer().eos_token_id


def test_a_base_is_found_by_name_path_or_the_repository_it_was_pulled_from(models: Path, tmp_path: Path) -> None:
    for name in ("base", str(models / "base")):
        edit(models / "tuned", base_model_name_or_path=name)
        assert open_model(models / "tuned", models_dir=models).base is not None
    edit(models / "tuned", base_model_name_or_path="acme/tiny")
    with pytest.raises(ModelError, match=r"acme/tiny, which is not here: fetch it with fireside pull hf:acme/tiny, or"):
        open_model(models / "tuned", models_dir=models)
    (models / "base" / "fireside.json").write_text(json.dumps({"source": "hf:acme/tiny@v2"}))
    assert open_model(models / "tuned", models_dir=models).base is not None
    shutil.rmtree(models / "base")
    damaged = list_models(tmp_path)[0]
    assert isinstance(damaged, DamagedModel) and "acme/tiny, which is not here" in damaged.reason


@pytest.mark.parametrize(
    "name", ["", "gone", "../models/base", "./base", "~/base", "/nowhere/base", "base\0", "/" + 300 * "b"]
)
def test_a_base_that_is_not_there_is_named_with_what_to_do(name: str, models: Path) -> None:
    """Nor is one reached by a path that climbs."""
    edit(models / "tuned", base_model_name_or_path=name)
    with pytest.raises(ModelError, match=r"not here: (fetch .*)?set base_model_name_or_path in .*json to the name"):
        open_model(models / "tuned", models_dir=models)


def test_an_adapter_of_an_adapter_or_of_other_weights_is_refused(models: Path) -> None:
    shutil.copytree(models / "tuned", models / "again")
    edit(models / "again", base_model_name_or_path="tuned")
    with pytest.raises(ModelError, match="an adapter itself"):
        open_checkpoint(models / "again", models)
    record = {"base_digest": content_digest(models / "base")}
    (models / "tuned" / "fireside.json").write_text(json.dumps(record))
    shutil.copytree(models / "base", models / "copy")
    edit(models / "tuned", base_model_name_or_path="copy")
    open_checkpoint(models / "tuned", models)  # a copy is the same, whatever its name and date
    write_tiny_model(models / "copy", "llama3", intermediate_size=128)
    with pytest.raises(ModelError, match=r"was trained over other weights than .*copy now holds"):
        open_checkpoint(models / "tuned", models)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use_dora": True}, "with use_dora are not supported"),
        ({"modules_to_save": ["lm_head"]}, "with modules_to_save are not"),
        ({"rank_pattern": {"q_proj": 8}}, "with rank_pattern are not"),
        ({"alpha_pattern": {"q_proj": 8}}, "with alpha_pattern are not"),
        ({"fan_in_fan_out": True}, "with fan_in_fan_out are not"),
        ({"invented_tomorrow": 1}, "with invented_tomorrow are not"),
        ({"bias": "all"}, "with bias are not"),
        ({"init_lora_weights": "pissa_niter_4"}, "with init_lora_weights are not"),
        ({"peft_type": "IA3"}, "peft_type is IA3; only LORA"),
        ({"r": "4"}, "r is '4'; it must be a whole number"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": None}, "has no lora_alpha"),
        ({"r": 8}, r"lora_A\.weight has shape \(4, 64\) and not \(8, 64\)"),
        ({"target_modules": ["q_proj", "down_proj", "up_proj"]}, r"up_proj\.lora_A\.weight is missing"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused_by_name(values: dict[str, Any], message: str, models: Path) -> None:
    edit(models / "tuned", **values)
    with pytest.raises(ModelError, match=message):
        open_checkpoint(models / "tuned", models)


def test_tensors_that_fit_nowhere_are_refused(models: Path) -> None:
    folder, prefix = models / "tuned", "base_model.model.model."
    whole = load_file(folder / ADAPTER_WEIGHTS_FILE)
    a, b = (f"{prefix}layers.0.self_attn.q_proj.lora_{kind}.weight" for kind in "AB")
    for changed, message in (
        ({name: tensor for name, tensor in whole.items() if name != b}, r"lora_B\.weight is missing"),
        (whole | {b: whole[b].T.contiguous()}, r"has shape \(4, 64\) and not \(64, 4\)"),
        (whole | {a.replace("layers.0", "layers.9"): whole[a].clone()}, r"no place for .*layers\.9"),
        (whole | {f"{prefix}embed_tokens.lora_embedding_A": whole[a].clone()}, "no place for .*lora_embedding_A"),
        (whole | {"../escape": whole[a].clone()}, r"no place for \.\./escape"),
        (whole | {a: whole[a].to(torch.float64)}, "is F64; supported"),
        (whole | {a.replace("self_attn.q_proj", "input_layernorm"): whole[a].clone()}, "only those of linear layers"),
    ):
        save_file(changed, folder / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=message):
            open_checkpoint(folder, models)
    save_file(whole | {a: whole[a] * float("nan")}, folder / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"tensor model\.layers\.0\.self_attn\.q_proj\.weight holds values that are"):
        load_decoder(open_checkpoint(folder, models))


def test_damage_and_pickles_are_named(models: Path) -> None:
    folder = models / "tuned"
    weights = (folder / ADAPTER_WEIGHTS_FILE).read_bytes()
    (folder / ADAPTER_WEIGHTS_FILE).write_bytes(weights[:-5])
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is incomplete"):
        open_model(folder, models_dir=models)
    (folder / ADAPTER_WEIGHTS_FILE).unlink()
    with pytest.raises(ModelError, match=r"and no adapter_model\.safetensors: it is incomplete"):
        open_model(folder, models_dir=models)
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"as a pickle \(adapter_model\.bin\), which can run code"):
        open_model(folder, models_dir=models)
