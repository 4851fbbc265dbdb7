"""What `test_sharding.py` asks of one process and of two: run as a module, with a folder, it is the two."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from fireside.data.batch import Batch
from fireside.errors import DivergedError
from fireside.models.decoder import Decoder
from fireside.training.hardware import make_fabric
from fireside.training.loop import StepRecord
from fireside.training.lora import add_lora
from fireside.training.objectives import next_token, next_token_within_documents
from fireside.training.recipe import HardwareConfig, LoraConfig, OptimizerKind, TrainingConfig
from tests.training import runs

PLAN = replace(runs.PLAN, rows=5)  # which two processes cannot share evenly: 2 and 1 in one pass, 1 and none in another
STOPS_AT = 5

Found = dict[str, torch.Tensor]

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "config": TrainingConfig(ema_decay=0.9, activation_checkpointing=True, clip_norm=0.1, keep=9),
        "objective": next_token_within_documents,
    },
    "untied": {"shape": {"tie_word_embeddings": False, "attention_bias": True}},
    "muon": {"config": TrainingConfig(optimizer=OptimizerKind.MUON)},
    "lora": {"lora": LoraConfig(rank=3)},
}


class Listener:
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.scores: list[float] = []

    def on_step(self, record: StepRecord) -> None:
        self.losses.append(record.loss)
        self.norms.append(record.grad_norm)

    def on_evaluation(self, step: int, bits_per_byte: float) -> None:
        self.scores.append(bits_per_byte)

    def on_checkpoint(self, state: object) -> None: ...


def trained(
    folder: Path,
    fabric: Fabric | None,
    *,
    seed: int = 0,
    shape: dict[str, Any] | None = None,
    lora: LoraConfig | None = None,
    stop: Callable[[], bool] = lambda: False,
    **more: Any,
) -> Found:
    """From the latest checkpoint in `folder` to the end, or to `stop`. The weights, and what was seen on the way."""
    model, listener = runs.decoder(seed, **(shape or {})), Listener()
    if lora is not None:
        add_lora(model, lora)

    def evaluate(decoder: Decoder) -> float:
        is_sharded = fabric is not None and isinstance(fabric.strategy, ModelParallelStrategy)
        assert isinstance(decoder.model.layers[0].input_layernorm.weight, DTensor) is is_sharded
        batch = runs.random_batch(seed=99)
        with torch.no_grad(), (fabric or Fabric(precision=more.get("precision", "32-true"))).autocast():
            decoder.eval()
            score = float(next_token(decoder, batch)) + float(decoder(batch.input_ids).square().mean())
            decoder.train()
        return score

    loop = runs.loop(model, folder, fabric=fabric, plan=PLAN, evaluate=evaluate, observer=listener, stop=stop, **more)
    loop.resume()
    loop.run()
    seen = {name: torch.tensor(values, dtype=torch.float64) for name, values in vars(listener).items()}
    return {name: parameter.detach() for name, parameter in model.named_parameters()} | seen


def diverged(folder: Path, fabric: Fabric) -> Found:
    """The rows of the last process alone give a loss that is not finite. All weights must stay finite."""

    def exploding(decoder: Decoder, batch: Batch) -> torch.Tensor:
        return next_token(decoder, batch) * (float("nan") if fabric.global_rank else 1)

    try:
        trained(folder, fabric, objective=exploding)
    except DivergedError as error:
        return {"step": torch.tensor(int(str(error).split("step ")[1].split()[0]))}
    raise AssertionError("it did not end")


def main(folder: Path) -> None:
    hardware = HardwareConfig(accelerator="cpu", devices=2, strategy="fsdp", precision="fp32", threads=1)
    fabric = make_fabric(hardware)
    found = {name: trained(folder / name, fabric, **case) for name, case in CASES.items()}
    for name in ("everything", "muon"):
        parts, case = folder / f"{name}-in-parts", CASES[name]
        trained(parts, fabric, stop=runs.stop_after(STOPS_AT), **case)
        found[parts.name] = trained(parts, fabric, seed=7, **case)
    found["after-one"] = trained(folder / "one", fabric, seed=7, **CASES["everything"])
    found["diverged"] = diverged(folder / "diverged", fabric)
    # In the same two processes, which are there already:
    narrow = make_fabric(hardware.model_copy(update={"precision": "bf16"}))
    found["narrow"] = trained(folder / "narrow", narrow)
    copies = make_fabric(hardware.model_copy(update={"strategy": "ddp"}))
    found["copies"] = trained(folder / "copies", copies, **CASES["everything"])
    if fabric.is_global_zero:
        for name, tensors in found.items():
            save_file(tensors, folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
