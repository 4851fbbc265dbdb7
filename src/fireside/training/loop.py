"""The one loop: batches in, a trained decoder out, for every stage.

A step's loss is summed over tokens and divided by the number of targets of the whole step, over all micro-batches and
devices, so that the gradient is the same however the step is cut. Every process reads the whole step's batch, whose
size is nothing beside the step's work, and trains on its own rows: the data is the same for any number of devices.
Checkpoints hold whole tensors, so that a run can be gone on with on other devices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint as recompute

from fireside.data.batch import IGNORED, Batch, BatchSource
from fireside.errors import DivergedError
from fireside.models.decoder import Decoder
from fireside.training.checkpoint import CheckpointStore, SavedState
from fireside.training.objectives import Objective
from fireside.training.optimizers import make_optimizers, optimizer_tensors, restore_optimizers, set_learning_rate
from fireside.training.processes import anyone
from fireside.training.recipe import TrainingConfig
from fireside.training.scaling import Plan
from fireside.training.schedules import learning_rate_factor
from fireside.training.sharding import callable_in_parts, like, twin, whole


@dataclass(frozen=True)
class StepRecord:
    """One step. loss: mean over its targets, in nats. tokens: seen since the stage began. seconds: likewise."""

    step: int
    steps: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    seconds: float


class Outcome(StrEnum):
    """How a stage ended."""

    FINISHED = "finished"
    STOPPED = "stopped"  # because it was asked to; a checkpoint is there to go on from


class Observer(Protocol):
    """Told what happens, on the first process only."""

    def on_step(self, record: StepRecord) -> None: ...

    def on_evaluation(self, step: int, bits_per_byte: float) -> None: ...

    def on_checkpoint(self, state: SavedState) -> None: ...


class SummedLoss(nn.Module):
    """An objective as a module, so that precision and parallelism wrap all of it."""

    def __init__(self, decoder: Decoder, objective: Objective) -> None:
        super().__init__()
        self.decoder = decoder
        self.objective = objective

    def forward(self, input_ids: Tensor, labels: Tensor, document_ids: Tensor, positions: Tensor) -> Tensor:
        return self.objective(self.decoder, Batch(input_ids, labels, document_ids, positions))


class Loop:
    """Trains what of `decoder` requires gradients.

    evaluate: bits per byte of the decoder it is given, or None if nothing is held out; all processes call it, and with
    a sharded decoder must make the same calls of it. stop: whether to end early, asked after each step.
    """

    def __init__(
        self,
        fabric: Fabric,
        decoder: Decoder,
        objective: Objective,
        source: BatchSource,
        config: TrainingConfig,
        plan: Plan,
        store: CheckpointStore,
        *,
        seed: int,
        compile_layers: bool = False,
        evaluate: Callable[[Decoder], float] | None = None,
        observer: Observer | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._fabric = fabric
        self._source = source
        self._config = config
        self._plan = plan
        self._store = store
        self._seed = seed
        self._evaluate = evaluate
        self._observer = observer
        self._stop = stop
        self._is_sharded = isinstance(fabric.strategy, ModelParallelStrategy)
        self._kept = decoder
        self._decoder = twin(decoder) if self._is_sharded else decoder
        self._layers = self._decoder.model.layers
        for layer in self._layers:
            if config.activation_checkpointing:  # until the end of `run`
                layer.forward = partial(recompute, layer.forward, use_reentrant=False)
            if compile_layers:
                layer.compile()
        self._summed_loss = SummedLoss(self._decoder, objective)
        self._module = fabric.setup_module(self._summed_loss)
        # Only now: what is sharded has other parameters than before.
        self._parameters = {name: p for name, p in self._decoder.named_parameters() if p.requires_grad}
        self._names = {id(parameter): name for name, parameter in self._parameters.items()}
        self._optimizers = make_optimizers(
            self._parameters.items(), config.optimizer, learning_rate=plan.lr, weight_decay=config.weight_decay
        )
        self._wrapped = [cast(Optimizer, fabric.setup_optimizers(optimizer)) for optimizer in self._optimizers]
        self._average = (
            {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
            if config.ema_decay is not None
            else {}
        )
        self.state = SavedState(step=0, tokens=0, seconds=0.0, position=source.state(), bits_per_byte=None)

    def resume(self) -> bool:
        """Goes to the latest checkpoint; False if there is none. Raises `RunError`."""
        latest = self._store.latest()
        if latest is None:
            return False
        self.state = self._store.read_state(latest)
        tensors = self._store.read_tensors(latest)
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(like(parameter, tensors["weights"][name]))
            for name, average in self._average.items():
                average.copy_(like(average, tensors["average"][name]))
        restore_optimizers(self._optimizers, tensors["optimizer"], self._names)
        self._source.restore(self.state.position)
        return True

    def run(self) -> Outcome:
        """To the last step, or until `stop`. At the last the decoder has the weights to keep: the averaged, if any.

        Raises `DivergedError` for a loss that is not finite (checkpoints stay as they are) and what saving raises.
        """
        self._decoder.train()
        try:
            return self._run()
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)  # the next stage decides anew whether to recompute

    def _run(self) -> Outcome:
        while self.state.step < self._plan.steps:
            record = self._step()
            step = record.step
            is_last = step == self._plan.steps
            if self._is_observed and (step % self._config.log_every == 0 or is_last):
                cast(Observer, self._observer).on_step(record)
            if self._evaluate is not None and (step % self._plan.evaluate_every == 0 or is_last):
                with self.averaged_weights(), callable_in_parts(self._summed_loss):
                    bits_per_byte = self._evaluate(self._decoder)
                self.state = replace(self.state, bits_per_byte=bits_per_byte)
                if self._is_observed:
                    cast(Observer, self._observer).on_evaluation(step, bits_per_byte)
            is_stopped = not is_last and anyone(self._fabric, self._stop())
            if is_last or is_stopped or step % self._plan.save_every == 0:
                self._save()
            if is_stopped:
                return Outcome.STOPPED
        kept = dict(self._kept.named_parameters())
        for name, parameter in self._parameters.items():
            kept[name].data.copy_(whole(self._average.get(name, parameter).detach()))
        return Outcome.FINISHED

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within it the decoder has the averaged weights, if there are any."""
        kept = {name: self._parameters[name].detach().clone() for name in self._average}
        for name, average in self._average.items():
            self._parameters[name].data.copy_(average)
        try:
            yield
        finally:
            for name, weights in kept.items():
                self._parameters[name].data.copy_(weights)

    def _step(self) -> StepRecord:
        started = time.perf_counter()
        step, plan = self.state.step, self._plan
        # What dropout draws is a function of this, so that no generator's state needs saving.
        torch.manual_seed(hash((self._seed, step, self._fabric.global_rank)))
        factor = learning_rate_factor(
            self._config.schedule,
            step,
            plan.steps,
            warmup_steps=plan.warmup_steps,
            decay_fraction=self._config.decay_fraction,
            floor=self._config.floor,
        )
        set_learning_rate(self._optimizers, factor)
        loss = self._backward(self._source.next_batch())
        grad_norm = self._clip()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            last = self._store.latest()
            raise DivergedError(
                f"the {'gradient' if math.isfinite(loss) else 'loss'} of step {step + 1} is not a finite number; its "
                f"batch is the one at {self.state.position} of the data. "
                f"{f'The last good checkpoint is {last}. ' if last else ''}Lower lr, or lengthen warmup_fraction"
            )
        for optimizer in self._wrapped:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self._average:
            # The average forgets the weights that training began with: its first steps weigh more, as in TensorFlow's.
            decay = min(cast(float, self._config.ema_decay), (1 + step) / (10 + step))
            torch._foreach_lerp_(
                list(self._average.values()),
                [parameter.detach() for parameter in self._parameters.values()],
                1 - decay,
            )
        elapsed = time.perf_counter() - started
        self.state = SavedState(
            step=step + 1,
            tokens=self.state.tokens + plan.tokens_per_step,
            seconds=self.state.seconds + elapsed,
            position=self._source.state(),
            bits_per_byte=None,
        )
        return StepRecord(
            step=step + 1,
            steps=plan.steps,
            loss=loss,
            lr=plan.lr * factor,
            grad_norm=grad_norm,
            tokens=self.state.tokens,
            tokens_per_second=plan.tokens_per_step / elapsed,
            seconds=self.state.seconds,
        )

    def _backward(self, batch: Batch) -> float:
        """Accumulates the gradient of the batch's mean loss, and returns that mean over all processes."""
        fabric, count = self._fabric, max(1, batch.num_targets)
        parts = self._own_parts(batch)
        total = torch.zeros((), device=fabric.device)
        for number, part in enumerate(parts):
            # Shards are summed at every pass: to put it off would keep the whole gradient on each device.
            is_put_off = number < len(parts) - 1 and not self._is_sharded
            with fabric.no_backward_sync(self._module) if is_put_off else nullcontext():
                loss: Tensor = self._module(*(tensor.to(fabric.device, non_blocking=True) for tensor in part))
                # Gradients are averaged over processes, and it is their sum that is wanted.
                fabric.backward(loss * (fabric.world_size / count))
            total += loss.detach()
        return float(cast(Tensor, fabric.all_reduce(total, reduce_op="sum"))) / count

    def _own_parts(self, batch: Batch) -> list[tuple[Tensor, ...]]:
        """This process's rows, in micro-batches. As many for every process, as they meet in each: some get padding."""
        rank, processes = self._fabric.global_rank, self._fabric.world_size
        missing = -batch.input_ids.shape[0] % processes
        padding = {"input_ids": 0, "labels": IGNORED, "document_ids": -1, "positions": 0}
        own = [F.pad(getattr(batch, name), (0, 0, 0, missing), value=v)[rank::processes] for name, v in padding.items()]
        return list(zip(*(torch.split(tensor, self._plan.micro_rows) for tensor in own), strict=True))

    def _clip(self) -> float:
        gradients = [p for p in self._parameters.values() if p.grad is not None]
        limit = math.inf if self._config.clip_norm is None else self._config.clip_norm
        return float(whole(nn.utils.clip_grad_norm_(gradients, limit)))

    def _save(self) -> None:
        named: dict[str, Iterable[tuple[str, Tensor]]] = {
            "weights": self._parameters.items(),
            "optimizer": optimizer_tensors(self._optimizers, self._names),
        }
        if self._average:
            named["average"] = self._average.items()
        tensors: dict[str, dict[str, Tensor]] = {file: {} for file in named}
        for file, content in named.items():
            for name, tensor in content:
                found = whole(tensor.detach())
                if self._fabric.is_global_zero:
                    tensors[file][name] = found.cpu()
        if self._fabric.is_global_zero:
            self._store.save(self.state, tensors)
            if self._observer is not None:
                self._observer.on_checkpoint(self.state)
        self._fabric.barrier()

    @property
    def _is_observed(self) -> bool:
        return self._observer is not None and self._fabric.is_global_zero
