"""AdamW for everything, or Muon for the hidden matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from fireside.training.recipe import OptimizerKind
from fireside.training.sharding import like

ADAM_BETAS = (0.9, 0.95)  # a shorter memory than Adam's own, as all large language models use


def make_optimizers(
    named: Iterable[tuple[str, nn.Parameter]],
    kind: OptimizerKind,
    *,
    learning_rate: float,
    weight_decay: float,
) -> list[Optimizer]:
    """Optimisers over the parameters that train. Each group keeps its peak rate as `peak_lr`.

    Weights decay in matrices only: norms and biases are scales and offsets, which have nothing to shrink for.
    """
    parameters = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    hidden = [p for name, p in parameters if kind is OptimizerKind.MUON and p.dim() == 2 and ".layers." in name]
    taken = {id(p) for p in hidden}
    others = [p for _, p in parameters if id(p) not in taken]
    groups = [
        {"params": [p for p in others if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = []
    if any(group["params"] for group in groups):
        filled = [group for group in groups if group["params"]]
        fused = all(p.device.type in ("cpu", "cuda") for p in others)
        optimizers.append(AdamW(filled, lr=learning_rate, betas=ADAM_BETAS, fused=fused))
    if hidden:
        optimizers.append(
            # Steps as large as AdamW's (https://arxiv.org/abs/2502.16982), so that one rate serves both.
            Muon(hidden, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Sets every group's rate to its peak times `factor`."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["peak_lr"] * factor


def optimizer_tensors(optimizers: Iterable[Optimizer], names: dict[int, str]) -> Iterator[tuple[str, torch.Tensor]]:
    """The state of every parameter as ("exp_avg.model.norm.weight", tensor). `names`: by `id` of the parameter."""
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                yield f"{key}.{names[id(parameter)]}", value


def restore_optimizers(
    optimizers: Iterable[Optimizer], tensors: dict[str, torch.Tensor], names: dict[int, str]
) -> None:
    """Puts what `optimizer_tensors` gave back in place."""
    by_parameter: dict[str, dict[str, torch.Tensor]] = {}
    for spelled, tensor in tensors.items():
        key, _, name = spelled.partition(".")
        by_parameter.setdefault(name, {})[key] = tensor
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                state = by_parameter.get(names[id(parameter)], {})
                optimizer.state[parameter] = {key: like(parameter, value) for key, value in state.items()}
