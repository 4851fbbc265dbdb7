"""`open_model` on folders written by safetensors and files written by the gguf package, whole and damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fireside.errors import ModelError
from fireside.models.local import DamagedModel, LocalModel, list_models, open_model, resolve_model
from fireside.models.names import is_model_name
from fireside.settings import Settings
from tests.engine.tiny_model import write_tiny_model
from tests.models.test_adapter import edit, write_adapter

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 16,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": 2,
}


def write_folder(folder: Path, **files: Any) -> Path:
    """A model folder; `files` maps names (without .json) to what replaces or joins the usual ones; None: absent."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {"model.embed_tokens.weight": torch.zeros(16, 32, dtype=torch.bfloat16), "model.norm.weight": torch.ones(32)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    for name, content in {"config": CONFIG, **files}.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def header_only(text: bytes) -> bytes:
    """A safetensors file without data."""
    return len(text).to_bytes(8, "little") + text


def write_gguf(path: Path, tokens: list[str] | None = None, **metadata: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(16)
    writer.add_license("apache-2.0")
    writer.add_chat_template("{{ messages }}")
    tokens = tokens or ["<s>", "</s>", "<|im_end|>", "a"]
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") else 1 for token in tokens])
    writer.add_eos_token_id(1)
    for key, value in metadata.items():
        writer.add_float32(f"general.sampling.{key}", value)
    quantised = gguf.quants.quantize(np.ones((16, 32), np.float32), gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("token_embd.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_folder(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "tiny",
        generation_config={"eos_token_id": [2, 5], "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1},
        tokenizer_config={"chat_template": "from the config"},
    )
    model = open_model(folder)
    assert (model.name, model.format, model.weight_type) == ("tiny", "safetensors", "BF16")
    assert (model.config.hidden_size, model.config.max_position_embeddings) == (32, 128)
    assert model.size_bytes == (folder / "model.safetensors").stat().st_size
    assert model.generation.eos_token_ids == (2, 5)
    assert (model.generation.temperature, model.generation.top_k) == (0.7, 20)
    assert (model.generation.top_p, model.generation.repetition_penalty) == (None, 1.1)
    assert model.chat_template == "from the config"


def test_folder_without_generation_config_takes_eos_from_config(tmp_path: Path) -> None:
    assert open_model(write_folder(tmp_path / "m")).generation.eos_token_ids == (2,)


def test_chat_template_order_is_that_of_transformers(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named default"}]
    folder = write_folder(tmp_path / "m", tokenizer_config={"chat_template": named})
    assert open_model(folder).chat_template == "named default"
    (folder / "chat_template.jinja").write_text("file é\n", encoding="utf-8")
    assert open_model(folder).chat_template == "file é\n"


def test_licence_from_record_or_model_card(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    assert open_model(folder).license is None
    (folder / "README.md").write_text('---\nlanguage: en\nlicense: "mit"\n---\n# A model\nlicense: other\n')
    assert open_model(folder).license == "mit"
    (folder / "fireside.json").write_text('{"license": "apache-2.0"}')
    assert open_model(folder).license == "apache-2.0"


def test_gguf(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.Q4_1.gguf", temp=0.5)
    model = open_model(path)
    assert (model.name, model.format, model.path) == ("tiny.Q4_1", "gguf", path)
    assert (model.weight_type, model.license) == ("Q4_1", "apache-2.0")
    assert model.config.max_position_embeddings == 256
    assert model.config.tie_word_embeddings
    assert model.chat_template == "{{ messages }}"
    assert model.generation.eos_token_ids == (1, 2)  # the named one, then the end of turn by its text
    assert model.generation.temperature == 0.5


def test_sampling_of_the_catalog_counts_where_the_gguf_is_silent(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m" / "weights.gguf", temp=0.5)
    (tmp_path / "m" / "fireside.json").write_text('{"generation": {"temperature": 0.2, "top_p": 0.9}}')
    generation = open_model(tmp_path / "m").generation
    assert (generation.temperature, generation.top_p, generation.top_k) == (0.5, 0.9, None)
    assert open_model(tmp_path / "m" / "weights.gguf").generation == generation  # as a fine-tuning names its base
    (tmp_path / "m" / "fireside.json").write_text('{"generation": {"top_p": "most"}}')
    with pytest.raises(ModelError, match="top_p is 'most'"):
        open_model(tmp_path / "m")


def test_gguf_end_of_turn_counts_only_as_a_special_token(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", tokens=["a", "</s>", "x", "y"])
    assert open_model(path).generation.eos_token_ids == (1,)
    path = write_gguf(tmp_path / "other.gguf", tokens=["a"])  # its eos, 1, is beyond the vocabulary
    assert open_model(path).generation.eos_token_ids == ()


def test_folder_with_one_gguf_opens_and_with_two_asks_which(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m" / "a.gguf")
    assert open_model(tmp_path / "m").path.name == "a.gguf"
    write_gguf(tmp_path / "m" / "b.gguf")
    with pytest.raises(ModelError, match=r"holds 2 GGUF files; name one: a\.gguf, b\.gguf"):
        open_model(tmp_path / "m")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_gguf_is_named(tmp_path: Path, keep: int) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(ModelError, match=r"m\.gguf"):
        open_model(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda data: data[:-1], "is incomplete: its tensors end at byte"),
        (lambda data: data[:20], "header would be longer than the file"),
        (lambda data: b"", "header would be longer than the file"),
        (lambda data: header_only(b"[]"), "does not describe tensors"),
        (lambda data: header_only(b"\xff\xff"), "is not JSON"),
        (lambda data: header_only(b'{"a": 5}'), "does not describe tensors"),
        (lambda data: data.replace(b"[16,32]", b'["a",2]'), "does not describe tensors"),
        (lambda data: data.replace(b"[16,32]", b"[-1,32]"), "does not describe tensors"),
        (
            lambda data: header_only(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}'),
            "not describe",
        ),
    ],
)
def test_damaged_safetensors_is_named(tmp_path: Path, content: Any, message: str) -> None:
    weights = write_folder(tmp_path / "m") / "model.safetensors"
    weights.write_bytes(content(weights.read_bytes()))
    with pytest.raises(ModelError, match=rf"m/model\.safetensors .*{message}"):
        open_model(tmp_path / "m")


def test_shards_follow_the_index(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        open_model(folder)
    save_file({"b": torch.zeros(4, dtype=torch.float16)}, folder / "model-00002-of-00002.safetensors")
    assert open_model(folder).size_bytes == sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/x.safetensors", "weights.bin", 3])
def test_index_that_leaves_the_folder_is_refused(tmp_path: Path, shard: Any) -> None:
    folder = write_folder(tmp_path / "m", **{"model.safetensors.index": {"weight_map": {"a": shard}}})
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(ModelError, match="weight_map does not map tensors to files of this folder"):
        open_model(folder)


def test_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can run code"):
        open_model(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config": None}, r"no config\.json"),
        ({"config": []}, "must hold a JSON object"),
        ({"config": CONFIG | {"architectures": ["GPT2LMHeadModel"]}}, "GPT2LMHeadModel.*supported:"),
        ({"generation_config": {"eos_token_id": ["a"]}}, r"generation_config\.json: eos_token_id"),
        ({"generation_config": {"eos_token_id": [2, -1]}}, r"eos_token_id is \[2, -1\]; .* below 16"),
        ({"generation_config": {"eos_token_id": 16}}, r"eos_token_id is 16"),
        ({"generation_config": {"temperature": "hot"}}, "temperature is 'hot'"),
    ],
)
def test_unusable_configs_say_what_is_wrong(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_model(write_folder(tmp_path / "m", **files))


def test_broken_json_and_foreign_files_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"m/config\.json is not valid JSON"):
        open_model(folder)
    with pytest.raises(ModelError, match=r"config\.json is not a model"):
        open_model(folder / "config.json")
    with pytest.raises(ModelError, match="nowhere does not exist"):
        open_model(tmp_path / "nowhere")


def test_missing_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        open_model(write_folder(tmp_path / "m")).load_tokenizer()


def test_list_holds_the_damaged_too(tmp_path: Path) -> None:
    assert list_models(tmp_path) == []
    write_gguf(tmp_path / "models" / "good" / "weights.gguf")
    (tmp_path / "models" / "empty").mkdir()
    (tmp_path / "models" / "gone").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "models" / ".partial").mkdir()
    empty, gone, good = list_models(tmp_path)
    assert isinstance(good, LocalModel) and good.name == "good"
    assert isinstance(empty, DamagedModel) and "holds no model" in empty.reason
    assert isinstance(gone, DamagedModel) and "does not exist" in gone.reason


def test_resolve_by_name_default_and_path(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "home" / "models" / "tiny" / "weights.gguf")
    settings = Settings(home=tmp_path / "home", model="tiny")
    assert resolve_model("tiny", settings) == resolve_model("default", settings)
    assert resolve_model("default", settings).name == "tiny"
    assert resolve_model(str(path), settings).name == "weights"
    with pytest.raises(ModelError, match=r"there is no model 'other' .* fireside models lists"):
        resolve_model("other", settings)
    with pytest.raises(ModelError, match="there is no model at"):
        resolve_model("../tiny", settings)


@pytest.mark.parametrize("name", ["smollm2-135m", "Qwen3-0.6B", "a"])
def test_model_names(name: str) -> None:
    assert is_model_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "a\\b", ".hidden", "a\n", "x.gguf", "~", "a" * 101])
def test_what_cannot_be_a_name(name: str) -> None:
    assert not is_model_name(name)


def test_the_version_is_that_of_the_weights(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "first")
    shutil.copytree(first, tmp_path / "copy")
    version = open_model(first).version()
    assert len(version) == 64 and open_model(tmp_path / "copy").version() == version
    weights = tmp_path / "copy" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert open_model(tmp_path / "copy").version() != version


def test_another_base_is_another_version(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    write_adapter(base, tmp_path / "tuned")
    edit(tmp_path / "tuned", base_model_name_or_path="base")
    before = open_model(tmp_path / "tuned", models_dir=tmp_path).version()
    write_tiny_model(tmp_path / "base", seed=1)
    assert open_model(tmp_path / "tuned", models_dir=tmp_path).version() != before
