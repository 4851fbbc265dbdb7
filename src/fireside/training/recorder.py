"""What happens in a stage, on its way into the run's folder, to a person and to the trackers."""

from __future__ import annotations

from typing import Protocol

import torch

from fireside.data.packing import PackingReport
from fireside.training.checkpoint import SavedState
from fireside.training.loop import StepRecord
from fireside.training.memory import MemoryEstimate, memory_in_use
from fireside.training.run import Run
from fireside.training.scaling import Plan
from fireside.training.tracking import Trackers


class TrainingObserver(Protocol):
    """Told what a run does, for a person. On the first process only."""

    def message(self, text: str) -> None: ...

    def stage(self, name: str, plan: Plan, done: int) -> None: ...

    def step(self, record: StepRecord) -> None: ...

    def evaluation(self, step: int, bits_per_byte: float) -> None: ...

    def sample(self, prompt: str, text: str) -> None: ...


class Recorder:
    """Writes a stage into the run's folder, and passes it on. Used on the first process only."""

    def __init__(
        self,
        run: Run,
        observer: TrainingObserver,
        stage: str,
        plan: Plan,
        device: torch.device,
        trackers: Trackers,
    ) -> None:
        self._run = run
        self._observer = observer
        self._stage = stage
        self._plan = plan
        self._device = device
        self._trackers = trackers
        self._latest: StepRecord | None = None
        self._steps_before = 0  # of the stages before this one
        self._peak_memory = 0
        self._samples: list[tuple[str, str]] = []

    def begin(self, state: SavedState, memory: MemoryEstimate, data: str, packing: PackingReport) -> None:
        record = self._run.record["stages"]
        before = list(self._run.recipe.stages)
        before = before[: before.index(self._stage)]
        self._steps_before = sum(record[name]["steps"] for name in before)
        self._peak_memory = record.get(self._stage, {}).get("peak_memory") or 0
        self._summarize(
            steps=self._plan.steps,
            step=state.step,
            plan=vars(self._plan),
            memory=vars(memory),
            data=data,
            packing=vars(packing),
        )
        self._observer.stage(self._stage, self._plan, state.step)

    def on_step(self, record: StepRecord) -> None:
        self._latest = record
        values = {key: value for key, value in vars(record).items() if key != "steps"}
        memory = memory_in_use(self._device)
        if memory is not None:
            self._peak_memory = max(self._peak_memory, memory)
            values["memory"] = memory
        self._run.log("step", self._stage, **values)
        self._trackers.scalars(
            self._steps_before + record.step,
            {
                f"{self._stage}/{key}": value
                for key, value in values.items()
                if key not in ("step", "tokens", "seconds")
            },
        )
        self._observer.step(record)

    def on_evaluation(self, step: int, bits_per_byte: float) -> None:
        tokens = step * self._plan.tokens_per_step
        for prompt, text in self._samples:
            self._run.log("sample", self._stage, step=step, prompt=prompt, text=text)
        self._run.log("evaluation", self._stage, step=step, tokens=tokens, bits_per_byte=bits_per_byte)
        self._trackers.scalars(self._steps_before + step, {f"{self._stage}/bits_per_byte": bits_per_byte})
        if self._samples:
            self._trackers.samples(self._steps_before + step, f"{self._stage}/samples", self._samples)
            self._samples = []
        self._summarize(bits_per_byte=bits_per_byte)
        self._observer.evaluation(step, bits_per_byte)

    def on_sample(self, prompt: str, text: str) -> None:
        self._samples.append((prompt, text))  # until the evaluation that it belongs to says its step
        self._observer.sample(prompt, text)

    def on_checkpoint(self, state: SavedState) -> None:
        found = {} if self._latest is None else {"loss": self._latest.loss}
        if self._peak_memory:
            found["peak_memory"] = self._peak_memory
        self._summarize(step=state.step, tokens=state.tokens, seconds=state.seconds, **found)

    def _summarize(self, **values: object) -> None:
        stages = self._run.record["stages"]
        stages[self._stage] = stages.get(self._stage, {}) | values
        self._run.update(stages=stages)
