"""What training will take, before it starts, and what it takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from fireside.engine.resources import available_memory
from fireside.errors import OutOfMemoryError
from fireside.models.checkpoint import SAFETENSORS_DTYPES, expected_shapes
from fireside.models.config import ModelConfig
from fireside.models.fetching import format_bytes
from fireside.models.local import LocalModel
from fireside.training.attention import LONGEST_DENSE
from fireside.training.cross_entropy import CHUNK_BYTES
from fireside.training.hardware import uses_bf16
from fireside.training.recipe import LoraConfig, OptimizerKind, Recipe, StageConfig
from fireside.training.scaling import Plan, parameter_count

# Numbers that autograd keeps per token, layer and unit of width: measured, see tests/training/test_memory.py.
_KEPT_PER_HIDDEN = 20
_KEPT_PER_INNER = 4
_IN_FLIGHT = 3  # layers whose shards are being gathered or summed, or in use, at once


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {format_bytes(value)}" for name, value in vars(self).items())
        return f"{format_bytes(self.total)} ({parts})"


def kept_quantized(base: LocalModel | None, lora: LoraConfig | None) -> int | None:
    """Bytes of a base whose weights stay in their blocks while its updates train; None: they are unfolded."""
    if base is None or base.format != "gguf" or base.weight_type in SAFETENSORS_DTYPES:
        return None
    return base.size_bytes if lora is not None and lora.quantized_base else None


def estimate_memory(
    config: ModelConfig,
    stage: StageConfig,
    plan: Plan,
    *,
    lora: LoraConfig | None,
    is_bf16: bool,
    shards: int,
    quantized_bytes: int | None = None,
) -> MemoryEstimate:
    """An upper estimate of what a stage takes beside Python and PyTorch themselves.

    shards: see `HardwareConfig`. quantized_bytes: what `kept_quantized` gave.
    """
    parameters = parameter_count(config)
    trained = parameters if lora is None else lora_parameter_count(config, lora)
    states = 1 if stage.optimizer is OptimizerKind.MUON else 2
    width = 4
    tokens = plan.micro_rows * plan.length
    kept = _KEPT_PER_HIDDEN * config.hidden_size + _KEPT_PER_INNER * config.intermediate_size
    layers = 1 if stage.activation_checkpointing else config.num_hidden_layers
    activations = tokens * kept * layers * width
    if stage.activation_checkpointing:
        activations += tokens * config.hidden_size * config.num_hidden_layers * width
    if is_bf16 and plan.length <= LONGEST_DENSE:  # their probabilities
        activations += 2 * plan.micro_rows * config.num_attention_heads * plan.length**2 * layers
    if stage.mask_documents:
        activations += plan.micro_rows * config.num_attention_heads * plan.length**2 * width
    copies = 2 if is_bf16 else 0  # of every weight, for a forward pass
    average = width * trained if stage.ema_decay is not None else 0
    head_gradient = width * config.vocab_size * config.hidden_size if lora is None else 0
    weights, gradients = parameters * (width + copies), trained * width
    if quantized_bytes is not None:  # whole on every device; of the unfolded only the largest at a time: the head
        unfolded = config.vocab_size * config.hidden_size * (copies or width)
        weights = quantized_bytes + unfolded + trained * (width + copies)
    elif shards > 1:
        outside = sum(prod(shape) for name, shape in expected_shapes(config).items() if ".layers." not in name)
        layer = (parameters - outside) // config.num_hidden_layers
        trained_outside = outside if lora is None else 0
        trained_layer = (trained - trained_outside) // config.num_hidden_layers
        weights = parameters * width // shards + outside * (width + copies) + _IN_FLIGHT * layer * (copies or width)
        gradients = trained * width // shards + trained_outside * width + _IN_FLIGHT * trained_layer * width
    return MemoryEstimate(
        weights=weights + average // shards,
        gradients=gradients + head_gradient,
        optimizer=trained * width * states // shards,
        activations=activations + 3 * CHUNK_BYTES["cuda"],
    )


def estimate_of(
    recipe: Recipe, name: str, config: ModelConfig, plan: Plan, base: LocalModel | None, device: torch.device
) -> MemoryEstimate:
    """`estimate_memory` for the stage of that name, on the recipe's hardware. base: the model that it starts from."""
    return estimate_memory(
        config,
        recipe.stages[name],
        plan,
        lora=recipe.lora,
        is_bf16=uses_bf16(recipe.hardware, device),
        shards=recipe.hardware.shards,
        quantized_bytes=kept_quantized(base, recipe.lora),
    )


def lora_parameter_count(config: ModelConfig, lora: LoraConfig) -> int:
    queries, keys = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    hidden, inner = config.hidden_size, config.intermediate_size
    sizes = {
        "q_proj": hidden + queries,
        "k_proj": hidden + keys,
        "v_proj": hidden + keys,
        "o_proj": queries + hidden,
        "gate_proj": hidden + inner,
        "up_proj": hidden + inner,
        "down_proj": inner + hidden,
    }
    return lora.rank * config.num_hidden_layers * sum(sizes.get(target, 0) for target in lora.targets)


def check_memory(stage: str, estimate: MemoryEstimate, device: torch.device, *, processes: int) -> None:
    """Raises `OutOfMemoryError` with the estimate if the device has less free. processes: of this machine, which share
    its memory if they train on the CPU."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory() // processes
    if estimate.total > free:
        raise OutOfMemoryError(
            f"stage {stage} would take about {estimate}, and {device.type} has {format_bytes(free)} free for each "
            "process: lower micro_batch_tokens, set activation_checkpointing, or make the model smaller"
        )


def memory_in_use(device: torch.device) -> int | None:
    """Bytes: of a GPU's, the most that tensors held since this was last asked; of a CPU's, the resident set of this
    process now, mapped files included. None where the system does not say (only Linux does, for a CPU).
    """
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
