"""What of a model is text (tokenizer, template, how to sample it), and putting a trained model in place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fireside.errors import RunError
from fireside.models.adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, BASE_DIGEST, read_adapter
from fireside.models.checkpoint import AdaptedCheckpoint, Checkpoint, open_checkpoint
from fireside.models.decoder import Decoder
from fireside.models.digest import content_digest
from fireside.models.json_file import read_json, read_text
from fireside.models.local import LocalModel, resolve_model
from fireside.models.names import RECORD_FILE
from fireside.models.saving import save_pretrained, write_folder
from fireside.models.text_parts import template_for
from fireside.settings import Settings
from fireside.tokenizers.chat_template import ChatTemplate
from fireside.tokenizers.tokenizer import Tokenizer

_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


@dataclass(frozen=True)
class ModelText:
    """files: of a model's folder, by name. generation: its `generation_config.json`. base: where it came from."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    files: Mapping[str, str]
    generation: Mapping[str, Any]
    base: LocalModel | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the files."""
        return hashlib.sha256(json.dumps(dict(self.files), sort_keys=True).encode()).hexdigest()


def text_of_folder(folder: Path) -> ModelText:
    """Of a tokenizer that was trained here. Raises `ModelError`."""
    config = read_json(folder / "tokenizer_config.json")
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json", config)
    ends = sorted({i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None})
    return ModelText(
        tokenizer=tokenizer,
        template=_template(tokenizer, config.get("chat_template")),
        files={name: read_text(folder / name) for name in _FILES if (folder / name).is_file()},
        # The likeliest token always: the first models that people make are small, and a draw misleads them.
        generation={"eos_token_id": ends, "temperature": 0.0},
    )


def text_of_base(name: str, settings: Settings) -> ModelText:
    """Of a model that is on this machine. Raises `ModelError`."""
    model = resolve_model(name, settings)
    tokenizer = model.load_tokenizer()
    if model.format == "safetensors":
        files = {name: read_text(model.path / name) for name in _FILES if (model.path / name).is_file()}
    else:
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": _spelling(tokenizer, tokenizer.bos_token_id),
            "eos_token": _spelling(tokenizer, tokenizer.eos_token_id),
            "add_bos_token": tokenizer.add_bos,
            "chat_template": model.chat_template,
        }
        files = {
            "tokenizer.json": tokenizer.to_json(),
            "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        }
    known = {key: value for key, value in vars(model.generation).items() if value is not None}
    ends = list(known.pop("eos_token_ids"))
    return ModelText(
        tokenizer=tokenizer,
        template=_template(tokenizer, model.chat_template),
        files=files,
        generation={"eos_token_id": ends or tokenizer.eos_token_id, **known},
        base=model,
    )


def check_name(name: str, settings: Settings, *, base: str | None = None) -> None:
    """Raises `RunError` if a model of that name is there that was not trained here, or that is the base itself."""
    folder = settings.models_dir / name
    if base is not None:
        path = resolve_model(base, settings).path.resolve()
        if folder.resolve() in (path, path.parent):
            raise RunError(f"the model would replace its own base, {path}: give the recipe another name")
    made_by = read_json(folder / RECORD_FILE).get("run")
    if folder.exists() and not isinstance(made_by, str):
        raise RunError(f"a model {name!r} is there already, and was not trained here: give the recipe another name")


def export_model(
    decoder: Decoder, text: ModelText, folder: Path, *, run: str, licence: str | None, adapter: Path | None = None
) -> None:
    """Writes the model where `fireside models` finds it, in place of an earlier run's: the decoder, or its base with
    the `adapter` added that was trained over it. Raises `ModelError`."""
    dtype = _stored_dtype(decoder, text)
    model: Decoder | Checkpoint = decoder
    if adapter is not None:
        # From its file and not from the decoder, whose weights may be quantised, or take twice the memory.
        assert text.base is not None  # the recipe has seen to it
        base = open_checkpoint(text.base.path, models_dir=folder.parent)
        model = AdaptedCheckpoint(read_adapter(adapter), base, dtype)
    save_pretrained(
        model,
        folder,
        dtype=dtype,
        extra_config={"eos_token_id": text.generation["eos_token_id"]},
        files={
            **text.files,
            "generation_config.json": json.dumps(text.generation, indent=2) + "\n",
            RECORD_FILE: _record(text, run, licence),
        },
        overwrite=True,
    )


def export_adapter(adapter: Path, text: ModelText, folder: Path, *, run: str, licence: str | None) -> None:
    """As `export_model`, but the adapter alone: tokenizer, template and sampling are those of its base."""
    assert text.base is not None  # the recipe has seen to it

    def copy(staged: Path) -> None:
        for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE):
            shutil.copyfile(adapter / name, staged / name)

    record = _record(text, run, licence, **{BASE_DIGEST: content_digest(text.base.path)})
    write_folder(folder, copy, {RECORD_FILE: record}, overwrite=True)


def base_reference(base: LocalModel, settings: Settings) -> str:
    """What an adapter calls its base: the name it has here, so that the models folder may move, or where it is."""
    path = base.path.absolute()
    folders = [one for one in (path, path.parent) if one.parent == settings.models_dir.absolute()]
    return folders[0].name if folders else str(path)


def _record(text: ModelText, run: str, licence: str | None, **more: str) -> str:
    base = text.base
    licence = licence or (base.license if base else None)
    record = {"run": run, "base": base.name if base else None, "license": licence, **more}
    return json.dumps(record, indent=2) + "\n"


def _stored_dtype(decoder: Decoder, text: ModelText) -> torch.dtype:
    """The base's where it is a float; else bfloat16, but float32 for the small, which lose more by it."""
    known = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    of_size = torch.bfloat16 if decoder.config.hidden_size >= 512 else torch.float32
    return of_size if text.base is None else known.get(text.base.weight_type, of_size)


def _template(tokenizer: Tokenizer, source: object) -> ChatTemplate | None:
    return template_for(tokenizer, source) if isinstance(source, str) else None


def _spelling(tokenizer: Tokenizer, token_id: int | None) -> str | None:
    return None if token_id is None else tokenizer.decode([token_id], skip_special_tokens=False)
