"""Low-rank adaptation (https://arxiv.org/abs/2106.09685), in the numbers and files of PEFT."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fireside.errors import ModelError, RecipeError
from fireside.models.decoder import Decoder
from fireside.training.recipe import LoraConfig

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_PREFIX = "base_model.model."  # PEFT's, before our own names


class LoraLinear(nn.Linear):
    """A linear layer W with an update: x W^T + scaling * dropout(x) A^T B^T. W and its bias do not train.

    A is drawn and B is 0, so that at first it is the layer it replaces. The parameters are called as in PEFT.
    """

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        nn.Module.__init__(self)  # the weights are the base's own, not new ones
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.dropout = config.dropout
        self.scaling = config.alpha / (math.sqrt(config.rank) if config.rank_stabilized else config.rank)
        # In float32 whatever the base is in: steps are small beside the weights they add up to.
        self.lora_A = nn.Parameter(torch.empty(config.rank, base.in_features, device=base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.rank, device=base.weight.device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        dropped = F.dropout(input, self.dropout, self.training)
        update = F.linear(F.linear(dropped.to(self.lora_A.dtype), self.lora_A), self.lora_B)
        out = F.linear(input, self.weight, self.bias)
        return out + (update * self.scaling).to(out.dtype)

    def update(self) -> Tensor:
        """What is added to the weights, float32 [out_features, in_features]."""
        return self.lora_B @ self.lora_A * self.scaling


def add_lora(decoder: Decoder, config: LoraConfig) -> None:
    """Freezes the decoder and gives every linear layer whose last name is a target an update that trains.

    Raises `RecipeError` for a target that the decoder does not have.
    """
    found = {name.rpartition(".")[2] for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    unknown = [target for target in config.targets if target not in found or target == "lm_head"]
    if unknown:
        known = ", ".join(sorted(found - {"lm_head"}))
        raise RecipeError(f"lora.targets: the model has no layer {unknown[0]!r}; it has {known}")
    decoder.requires_grad_(False)
    for name, module in list(decoder.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in config.targets:
            _replace(decoder, name, LoraLinear(module, config))


@torch.no_grad()
def merge_lora(decoder: Decoder) -> None:
    """Adds the updates to the weights and puts plain layers back: the same function, without a trace of LoRA."""
    for name, layer in list(_lora_layers(decoder)):
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight, plain.bias = layer.weight, layer.bias
        plain.weight += layer.update().to(plain.weight.dtype)
        _replace(decoder, name, plain)
    decoder.requires_grad_(True)


def save_adapter(decoder: Decoder, config: LoraConfig, folder: Path, base: str) -> None:
    """Writes what `peft.PeftModel.from_pretrained` reads. base: the model it belongs to, as a name or path."""
    tensors = {
        f"{_PREFIX}{name}.{kind}.weight": getattr(layer, kind).detach().cpu().contiguous()
        for name, layer in _lora_layers(decoder)
        for kind in ("lora_A", "lora_B")
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(_peft_config(config, base), indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def load_adapter(decoder: Decoder, folder: Path) -> None:
    """Adds the adapter in `folder`, ours or PEFT's, to a plain decoder. Raises `ModelError` if it does not fit."""
    try:
        raw = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS_FILE)
        config = LoraConfig(
            rank=raw["r"],
            alpha=raw["lora_alpha"],
            dropout=raw.get("lora_dropout", 0.0),
            targets=tuple(sorted(raw["target_modules"])),
            rank_stabilized=raw.get("use_rslora", False),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder} does not hold an adapter that can be read: {error}") from error
    unsupported = [key for key in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern") if raw.get(key)]
    if unsupported or raw.get("bias", "none") != "none":
        raise ModelError(f"{folder}: adapters with {(unsupported or ['bias'])[0]} are not supported")
    add_lora(decoder, config)
    for name, layer in _lora_layers(decoder):
        for kind in ("lora_A", "lora_B"):
            key, parameter = f"{_PREFIX}{name}.{kind}.weight", getattr(layer, kind)
            if key not in tensors or tensors[key].shape != parameter.shape:
                raise ModelError(f"{folder} belongs to another model: {key} is missing or of another shape")
            parameter.copy_(tensors.pop(key))
    if tensors:
        raise ModelError(f"{folder} belongs to another model: this one has no place for {min(tensors)}")


def _lora_layers(decoder: Decoder) -> Iterator[tuple[str, LoraLinear]]:
    for name, module in decoder.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def _replace(decoder: Decoder, name: str, layer: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(decoder.get_submodule(owner), attribute, layer)


def _peft_config(config: LoraConfig, base: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.targets),
        "use_rslora": config.rank_stabilized,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
