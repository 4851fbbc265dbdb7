"""What the stages of a run came to, as reports and comparisons say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fireside.models.fetching import format_bytes
from fireside.training.run import Run

# Under load; guesses, and reports say so.
WATTS_PER_CORE = 10
WATTS_PER_GPU = 400


@dataclass(frozen=True)
class StageResult:
    """None: not known. loss: of the last logged step before the last checkpoint, in nats per token. peak_memory: in
    bytes. kwh: a guess."""

    stage: str
    step: int
    steps: int
    tokens: int
    seconds: float
    loss: float | None
    bits_per_byte: float | None
    peak_memory: int | None
    kwh: float

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / self.seconds if self.seconds else None

    def cells(self) -> dict[str, str]:
        """As texts, by the headings of a table; empty where nothing is known."""
        return {
            "Steps": f"{self.step:,} of {self.steps:,}",
            "Tokens": f"{self.tokens:,}",
            "Loss": "" if self.loss is None else f"{self.loss:.4f}",
            "Bits/byte": "" if self.bits_per_byte is None else f"{self.bits_per_byte:.4f}",
            "Tokens/s": "" if self.tokens_per_second is None else f"{self.tokens_per_second:,.0f}",
            "Minutes": f"{self.seconds / 60:.1f}",
            "Memory": "" if self.peak_memory is None else format_bytes(self.peak_memory),
            "kWh": f"{self.kwh:.3g}",
        }


HEADINGS = ("Steps", "Tokens", "Loss", "Bits/byte", "Tokens/s", "Minutes", "Memory", "kWh")


def stage_results(run: Run) -> list[StageResult]:
    """Of the stages that were begun, in their order."""
    record = run.record
    watts = _watts(record)[0]
    known = {field.name for field in fields(StageResult)}
    zeros: dict[str, Any] = {"step": 0, "steps": 0, "tokens": 0, "seconds": 0.0, "loss": None, "bits_per_byte": None}
    results = []
    for name, stage in record["stages"].items():
        values = zeros | {"peak_memory": None} | {key: stage[key] for key in stage if key in known}
        results.append(StageResult(stage=name, kwh=values["seconds"] * watts / 3.6e6, **values))
    return results


def cost(run: Run) -> str:
    """Seconds and energy of all stages, in a sentence."""
    results = stage_results(run)
    seconds, kwh = (sum(getattr(result, key) for result in results) for key in ("seconds", "kwh"))
    return f"{seconds:,.0f} s of training, about {kwh:.3g} kWh ({_watts(run.record)[1]})"


def _watts(record: Mapping[str, Any]) -> tuple[int, str]:
    devices = record.get("devices") or 1
    if str(record.get("device", "cpu")).startswith("cuda"):
        return devices * WATTS_PER_GPU, f"GPUs: {devices}, at a guessed {WATTS_PER_GPU} W each"
    cores = devices * (record.get("threads") or 1)
    return cores * WATTS_PER_CORE, f"cores: {cores}, at a guessed {WATTS_PER_CORE} W each"


def indent_code(text: str) -> str:
    """A block of code in Markdown, which nothing within the text ends or formats."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
