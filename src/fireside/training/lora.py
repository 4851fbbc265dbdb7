"""Low-rank adaptation (https://arxiv.org/abs/2106.09685), in the numbers and files of PEFT.

Here adapters train and are saved. What adds one to its base's weights is `models.checkpoint.AdaptedCheckpoint`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from fireside.errors import RecipeError
from fireside.kernels.linear import linear
from fireside.models.adapter import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, PREFIX
from fireside.models.decoder import Decoder
from fireside.models.quantized_layers import QuantizedLinear
from fireside.training.recipe import LoraConfig


class LoraLinear(nn.Module):
    """A linear layer W with an update: x W^T + scaling * dropout(x) A^T B^T. W and its bias do not train.

    A is drawn and B is 0, so that at first it is the layer it replaces. The parameters are called as in PEFT.
    """

    def __init__(self, base: nn.Linear | QuantizedLinear, config: LoraConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.dropout = config.dropout
        self.scaling = config.alpha / (math.sqrt(config.rank) if config.rank_stabilized else config.rank)
        # In float32 whatever the base is in: steps are small beside the weights they add up to.
        self.lora_A = nn.Parameter(torch.empty(config.rank, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        dropped = F.dropout(input, self.dropout, self.training)
        update = linear(linear(dropped.to(self.lora_A.dtype), self.lora_A), self.lora_B)
        out: Tensor = self.base(input)
        return out + (update * self.scaling).to(out.dtype)


def add_lora(decoder: Decoder, config: LoraConfig) -> None:
    """Freezes the decoder and gives every linear layer whose last name is a target an update that trains.

    The updates are made on the CPU. Raises `RecipeError` for a target that the decoder does not have.
    """
    layers = {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear | QuantizedLinear) and name != "lm_head"
    }
    found = {name.rpartition(".")[2] for name in layers}
    unknown = [target for target in config.targets if target not in found]
    if unknown:
        raise RecipeError(f"lora.targets: the model has no layer {unknown[0]!r}; it has {', '.join(sorted(found))}")
    decoder.requires_grad_(False)
    for name, module in layers.items():
        if name.rpartition(".")[2] in config.targets:
            decoder.set_submodule(name, LoraLinear(module, config))


def save_adapter(decoder: Decoder, config: LoraConfig, folder: Path, base: str) -> None:
    """Writes what `peft.PeftModel.from_pretrained` reads. base: the model it belongs to, as a name or path."""
    tensors = {
        f"{PREFIX}{name}.{kind}.weight": getattr(layer, kind).detach().cpu().contiguous()
        for name, layer in _lora_layers(decoder)
        for kind in ("lora_A", "lora_B")
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / ADAPTER_CONFIG_FILE).write_text(json.dumps(_peft_config(config, base), indent=2) + "\n", encoding="utf-8")


def _lora_layers(decoder: Decoder) -> Iterator[tuple[str, LoraLinear]]:
    for name, module in decoder.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


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
