"""Adapters in PEFT's format, described and checked: low-rank updates of a base model's matrices. Free of torch.

An adapter is a folder with `adapter_config.json` and `adapter_model.safetensors`. Format:
https://huggingface.co/docs/peft/developer_guides/checkpoint. Adding the updates is `checkpoint.AdaptedCheckpoint`'s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fireside.errors import ModelError
from fireside.models.digest import content_digest, model_files
from fireside.models.fields import Fields
from fireside.models.json_file import read_json
from fireside.models.names import RECORD_FILE, is_model_name
from fireside.models.safetensors_header import StoredTensor, read_header

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's, before the base's own names
BASE_DIGEST = "base_digest"  # in our record: of the base's files, as `content_digest` gave it

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_DTYPES = ("F32", "F16", "BF16")
# What says nothing of how the update is made, or is read below. Any other key must be off: PEFT gets new ones, and each
# may change the numbers.
_UNDERSTOOD = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "eva_config", "exclude_modules", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_rslora",
})  # fmt: skip
# Ways to begin that leave the base's weights as they are; others (PiSSA, OLoRA, LoftQ) train over changed ones.
_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """A folder whose config is understood. base: what it calls its base, a name, a hub repository or a path.

    targets: last names of the matrices it must hold updates of, in every layer; empty: whichever it holds.
    """

    folder: Path
    base: str
    rank: int
    scaling: float
    targets: tuple[str, ...]

    @property
    def weights(self) -> Path:
        return self.folder / ADAPTER_WEIGHTS_FILE

    def stored(self) -> dict[str, StoredTensor]:
        """Its tensors by name. Raises `ModelError` for damage."""
        return read_header(self.weights)

    def updated(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Names among those of the base's `shapes` that it updates.

        Raises `ModelError` if it does not fit: a tensor without a place, one that is missing, or another shape.
        """
        stored = self.stored()
        found: list[str] = []
        for name, shape in shapes.items():
            names = tensor_names(name)
            is_target = name.endswith(".weight") and name.split(".")[-2] in self.targets
            if not is_target and stored.keys().isdisjoint(names):
                continue
            if len(shape) != 2 or name == "model.embed_tokens.weight":
                raise ModelError(f"{self.weights} updates {name}, and only those of linear layers are supported")
            for own, wanted in zip(names, ((self.rank, shape[1]), (shape[0], self.rank)), strict=True):
                tensor = stored.pop(own, None)
                if tensor is None or tensor.shape != wanted:
                    what = "is missing" if tensor is None else f"has shape {tensor.shape} and not {wanted}"
                    raise ModelError(f"{self.weights} belongs to another model: {own} {what}")
                if tensor.dtype not in _DTYPES:
                    raise ModelError(f"{self.weights}: {own} is {tensor.dtype}; supported: {', '.join(_DTYPES)}")
            found.append(name)
        if stored:
            raise ModelError(f"{self.weights} belongs to another model: its base has no place for {min(stored)}")
        return found


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter, and not a whole model that kept an adapter's config."""
    if not (folder / ADAPTER_CONFIG_FILE).is_file():
        return False
    whole = (folder / "model.safetensors", folder / "model.safetensors.index.json", *folder.glob("*.gguf"))
    return not any(path.is_file() for path in whole)


def read_adapter(folder: Path) -> Adapter:
    """Raises `ModelError` for damage, for pickles, and for what is not supported, by its name in PEFT."""
    path = folder / ADAPTER_CONFIG_FILE
    raw = read_json(path)
    fields = Fields(raw, str(path))
    if not (folder / ADAPTER_WEIGHTS_FILE).is_file():
        pickles = sorted(folder.glob("*.bin"))
        if pickles:
            raise ModelError(
                f"{folder} holds its adapter as a pickle ({pickles[0].name}), which can run code when it is loaded: "
                "save it again with a newer PEFT, which writes safetensors"
            )
        raise ModelError(f"{folder} has {path.name} and no {ADAPTER_WEIGHTS_FILE}: it is incomplete")
    kind, bias = fields.text("peft_type", "LORA"), fields.text("bias", "none")
    if kind != "LORA":
        raise ModelError(f"{path}: peft_type is {kind}; only LORA is supported")
    unsupported = [key for key, value in raw.items() if value and key not in _UNDERSTOOD]
    unsupported += ["bias"] if bias != "none" else []
    unsupported += ["init_lora_weights"] if _beginning(raw) not in _BEGINNINGS else []
    if unsupported:
        raise ModelError(f"{path}: adapters with {unsupported[0]} are not supported; merge it with PEFT instead")
    rank, alpha = fields.integer("r"), fields.number("lora_alpha")
    if not 0 < rank <= 1 << 16 or not math.isfinite(alpha):
        raise ModelError(f"{path}: r is {rank} and lora_alpha {alpha}; they must be a rank and a number")
    return Adapter(
        folder=folder,
        base=fields.text("base_model_name_or_path", ""),
        rank=rank,
        scaling=alpha / (math.sqrt(rank) if fields.boolean("use_rslora", False) else rank),
        targets=_complete_targets(raw),
    )


def open_base(folder: Path, models_dir: Path | None) -> tuple[Adapter, Path]:
    """The adapter in `folder` and where its base is: a model of `models_dir`, or at an absolute path.

    Raises `ModelError` if the base is not there, is an adapter itself, or is not what the adapter was trained over.
    """
    adapter = read_adapter(folder)
    path = _find_base(adapter, models_dir)
    if is_adapter(path):
        raise ModelError(f"{folder} is an adapter of {path}, an adapter itself: only adapters of whole models can run")
    trained_over = read_json(folder / RECORD_FILE).get(BASE_DIGEST)
    if trained_over is not None and trained_over != content_digest(path):
        raise ModelError(
            f"{folder} was trained over other weights than {path} now holds: put those back, or train it again"
        )
    return adapter, path


def _find_base(adapter: Adapter, models_dir: Path | None) -> Path:
    base, file = adapter.base, adapter.folder / ADAPTER_CONFIG_FILE
    if Path(base).is_absolute():
        found = Path(base) if _exists(Path(base)) else None
    elif models_dir is not None and is_model_name(base):
        found = models_dir / base if (models_dir / base).is_dir() else None
    else:
        found = _pulled(base, models_dir)
    if found is not None and model_files(found):
        return found
    fetch = f"fetch it with fireside pull hf:{base}, or " if _REPOSITORY.fullmatch(base) else ""
    raise ModelError(
        f"{adapter.folder} is an adapter of {base or 'a model without a name'}, which is not here: {fetch}"
        f"set base_model_name_or_path in {file} to the name, or the absolute path, of a model that is"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for one, or a folder that may not be read
        return False


def _pulled(repository: str, models_dir: Path | None) -> Path | None:
    """The model that was pulled from that repository of the hub."""
    if models_dir is None or not models_dir.is_dir() or not _REPOSITORY.fullmatch(repository):
        return None
    source = re.compile(rf"hf:{re.escape(repository)}(?:[/@].*)?")
    for folder in sorted(models_dir.iterdir()):
        recorded = read_json(folder / RECORD_FILE).get("source") if folder.is_dir() else None
        if isinstance(recorded, str) and source.fullmatch(recorded):
            return folder
    return None


def tensor_names(name: str) -> tuple[str, str]:
    """PEFT's names for the two factors of the update of "model....weight": A [rank, inputs], B [outputs, rank]."""
    module = name.removesuffix(".weight")
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def _beginning(raw: Mapping[str, Any]) -> object:
    value = raw.get("init_lora_weights")
    return value if isinstance(value, bool | str) else None


def _complete_targets(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Of those whose every layer is meant: a pattern, or a choice of layers, may leave some out."""
    targets = raw.get("target_modules")
    chosen = raw.get("layers_to_transform") is not None or raw.get("exclude_modules") is not None
    if not isinstance(targets, list) or chosen:
        return ()
    return tuple(target for target in targets if isinstance(target, str))
