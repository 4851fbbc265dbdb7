"""Writing a model as a Hugging Face folder: safetensors and `config.json`, whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fireside.errors import ModelError
from fireside.models.checkpoint import Checkpoint
from fireside.models.config import config_to_hf
from fireside.models.decoder import Decoder
from fireside.models.quantization import QuantizedTensor

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
DEFAULT_SHARD_BYTES = 5_000_000_000  # as transformers shards


def save_pretrained(
    model: Decoder | Checkpoint,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    extra_config: Mapping[str, Any] | None = None,
    files: Mapping[str, str | bytes] | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    overwrite: bool = False,
) -> None:
    """Writes a folder that `transformers.AutoModelForCausalLM.from_pretrained` loads unchanged.

    `dtype` is that of the stored weights (default: a decoder's own, of a checkpoint bfloat16). `extra_config` joins
    `config.json` (`eos_token_id`, ...); `files` are written as given (`tokenizer.json`, `generation_config.json`, ...).
    Memory: a shard of the stored weights. The rest is as in `write_folder`.
    """
    dtype = dtype or (model.dtype if isinstance(model, Decoder) else torch.bfloat16)
    raw = config_to_hf(model.config) | {"dtype": str(dtype).removeprefix("torch.")} | dict(extra_config or {})
    texts: dict[str, str | bytes] = {"config.json": _json(raw), **(files or {})}
    write_folder(folder, lambda staged: _write_weights(model, dtype, staged, max_shard_bytes), texts, overwrite)


def write_folder(
    folder: Path, write: Callable[[Path], None], files: Mapping[str, str | bytes], overwrite: bool = False
) -> None:
    """Fills a model's folder by `write`, and with `files` as given.

    It appears at once, complete: everything is written and flushed beside it and then renamed.

    Raises `ModelError` if the folder exists and `overwrite` is false, or if it cannot be written.
    """
    for name in files:
        if Path(name).name != name:
            raise ValueError(f"{name!r} is not the name of a file inside a model's folder")
    if folder.exists() and not overwrite:
        raise ModelError(f"{folder} exists already: choose another name, or remove it first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial") as partial:
            staged = Path(partial) / "new"
            staged.mkdir()
            write(staged)
            for name, content in files.items():
                (staged / name).write_bytes(content.encode() if isinstance(content, str) else content)
            for path in staged.iterdir():
                flush(path)
            _put_in_place(staged, folder, Path(partial) / "replaced")
            flush(folder.parent)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the model cannot be written to {folder}: {error}") from error


def _put_in_place(staged: Path, folder: Path, aside: Path) -> None:
    """Renames `staged` to `folder`; a folder that was there goes to `aside`, and comes back if the rename fails."""
    if not folder.exists():
        staged.rename(folder)
        return
    folder.rename(aside)
    try:
        staged.rename(folder)
    except OSError:
        aside.rename(folder)
        raise


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def flush(path: Path) -> None:
    """Brings a file or folder through the page cache to the disk, so that a rename cannot outlive what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_weights(model: Decoder | Checkpoint, dtype: torch.dtype, folder: Path, max_shard_bytes: int) -> None:
    """One file, or shards and their index where the weights are more than `max_shard_bytes`."""
    if isinstance(model, Checkpoint):
        get: Callable[[str], Tensor | QuantizedTensor] = model.tensor
        sizes = {name: prod(shape) * dtype.itemsize for name, shape in model.shapes.items()}
    else:
        get = dict(model.named_parameters()).__getitem__
        sizes = {name: weights.numel() * dtype.itemsize for name, weights in model.named_parameters()}
    shards = list(_shards(sizes, max_shard_bytes))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS_FILE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        weights = {name: _stored(get(name), dtype) for name in names}
        save_file(weights, folder / file, metadata={"format": "pt"})  # transformers insists on the "pt"
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(sizes.values())
        (folder / INDEX_FILE).write_text(_json({"metadata": {"total_size": total}, "weight_map": weight_map}))


def _stored(weights: Tensor | QuantizedTensor, dtype: torch.dtype) -> Tensor:
    if isinstance(weights, QuantizedTensor):
        return weights.dequantize(dtype)
    return weights.detach().to(device="cpu", dtype=dtype).contiguous()


def _shards(sizes: Mapping[str, int], largest: int) -> Iterator[list[str]]:
    """Names in order, in runs of at most `largest` bytes; a tensor larger than that has a run of its own."""
    names: list[str] = []
    total = 0
    for name, size in sizes.items():
        if names and total + size > largest:
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    yield names
