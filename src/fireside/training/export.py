"""What of a model is text (tokenizer, template, how to sample it), and putting a trained model in place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fireside.errors import RunError
from fireside.models.decoder import Decoder
from fireside.models.json_file import read_json, read_text
from fireside.models.local import RECORD_FILE, LocalModel, resolve_model
from fireside.models.saving import save_pretrained
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


def export_model(decoder: Decoder, text: ModelText, folder: Path, *, run: str, licence: str | None) -> None:
    """Writes the model where `fireside models` finds it, in place of an earlier run's. Raises `ModelError`."""
    licence = licence or (text.base.license if text.base else None)
    record = {"run": run, "base": text.base.name if text.base else None, "license": licence}
    save_pretrained(
        decoder,
        folder,
        dtype=_stored_dtype(decoder, text),
        extra_config={"eos_token_id": text.generation["eos_token_id"]},
        files={
            **text.files,
            "generation_config.json": json.dumps(text.generation, indent=2) + "\n",
            RECORD_FILE: json.dumps(record, indent=2) + "\n",
        },
        overwrite=True,
    )


def _stored_dtype(decoder: Decoder, text: ModelText) -> torch.dtype:
    """The base's where it is a float; else bfloat16, but float32 for the small, which lose more by it."""
    known = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    of_size = torch.bfloat16 if decoder.config.hidden_size >= 512 else torch.float32
    return of_size if text.base is None else known.get(text.base.weight_type, of_size)


def _template(tokenizer: Tokenizer, source: object) -> ChatTemplate | None:
    return template_for(tokenizer, source) if isinstance(source, str) else None


def _spelling(tokenizer: Tokenizer, token_id: int | None) -> str | None:
    return None if token_id is None else tokenizer.decode([token_id], skip_special_tokens=False)
