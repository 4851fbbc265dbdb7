"""How many tokens a second one training step takes, ours beside Hugging Face's Trainer, the same model and batches.

    .venv/bin/python -m benchmarks.training [--threads N] [--rounds N] [--steps N]

Vocabulary 4,096, 256 wide, 4 layers, context 256, 16 rows a step, AdamW (fused), clipping at 1, in float32 and with
bfloat16 products. Each measurement is a process of its own; the contenders take turns, so that a machine is as busy
for all. Printed are the fastest step's tokens per second, by the clock and by the processor's time (which leaves out
what others take), and the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import Machine

ROWS, LENGTH, VOCAB = 16, 256, 4096
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": LENGTH,
    "tie_word_embeddings": True,
}
CONTENDERS = ("fireside", "transformers")
PRECISIONS = ("fp32", "bf16")


class Stopwatch:
    """Times between marks, by the clock and by the processor."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def result(self) -> dict[str, float]:
        pairs = list(zip(self.marks[2:], self.marks[3:], strict=False))  # the first steps allocate
        tokens = ROWS * LENGTH
        return {
            "wall": tokens / min(b[0] - a[0] for a, b in pairs),
            "cpu": tokens / min(b[1] - a[1] for a, b in pairs),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def run_fireside(precision: str, steps: int, watch: Stopwatch) -> None:
    import torch
    from lightning_fabric import Fabric

    from fireside.data.batch import Batch
    from fireside.models.config import config_from_hf
    from fireside.models.decoder import Decoder
    from fireside.training.checkpoint import CheckpointStore, SavedState
    from fireside.training.loop import Loop, StepRecord
    from fireside.training.objectives import next_token
    from fireside.training.recipe import TrainingConfig
    from fireside.training.scaling import Plan

    class Source:
        def __init__(self) -> None:
            self.generator = torch.Generator().manual_seed(0)

        def next_batch(self) -> Batch:
            ids = torch.randint(0, VOCAB, (ROWS, LENGTH + 1), generator=self.generator)
            zeros = torch.zeros((ROWS, LENGTH), dtype=torch.int64)
            return Batch(ids[:, :-1], ids[:, 1:], zeros, torch.arange(LENGTH).expand(ROWS, -1))

        def state(self) -> dict[str, int]:
            return {}

        def restore(self, state: dict[str, int]) -> None: ...

    class Marks:
        def on_step(self, record: StepRecord) -> None:
            watch.mark()

        def on_evaluation(self, step: int, bits_per_byte: float) -> None: ...

        def on_checkpoint(self, state: SavedState) -> None: ...

    torch.manual_seed(0)
    decoder = Decoder(config_from_hf({"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, **SHAPE}))
    plan = Plan(steps + 1, ROWS, ROWS, LENGTH, 1e-3, 1, steps + 2, steps + 2)
    fabric = Fabric(accelerator="cpu", precision="bf16-mixed" if precision == "bf16" else "32-true")
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder), keep=1, identity={})
        stops = iter([False] * (steps - 1) + [True])
        loop = Loop(
            fabric, decoder, next_token, Source(), TrainingConfig(), plan, store,
            seed=0, observer=Marks(), stop=lambda: next(stops),
        )  # fmt: skip
        loop.run()


def run_transformers(precision: str, steps: int, watch: Stopwatch) -> None:
    import torch
    from torch.utils.data import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    class Rows(Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return ROWS * steps

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            ids = torch.randint(0, VOCAB, (LENGTH,), generator=torch.Generator().manual_seed(index))
            return {"input_ids": ids, "labels": ids}

    class Marks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: object, **values: object) -> None:
            watch.mark()

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=ROWS, max_steps=steps, use_cpu=True,
            bf16=precision == "bf16", optim="adamw_torch_fused", learning_rate=1e-3, max_grad_norm=1.0,
            save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        model = LlamaForCausalLM(LlamaConfig(**SHAPE))
        Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[Marks()]).train()


RUN: dict[str, Callable[[str, int, Stopwatch], None]] = {"fireside": run_fireside, "transformers": run_transformers}


def measure(contender: str, precision: str, threads: int, steps: int) -> dict[str, float]:
    """One contender in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", "--one", contender, precision]
    done = subprocess.run(
        [*command, "--threads", str(threads), "--steps", str(steps)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        import torch

        torch.set_num_threads(options.threads)
        watch = Stopwatch()
        RUN[options.one[0]](options.one[1], options.steps, watch)
        print(json.dumps(watch.result()))
        return
    print(Machine.here())
    print(f"{options.threads} threads, {options.rounds} rounds of {options.steps} steps")
    for precision in PRECISIONS:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for _ in range(options.rounds):
            for name in CONTENDERS:
                found[name].append(measure(name, precision, options.threads, options.steps))
        for name, results in found.items():
            best = {key: max(result[key] for result in results) for key in ("wall", "cpu")}
            peak = statistics.median(result["peak_mib"] for result in results)
            print(
                f"{precision} {name:13} {best['wall']:8,.0f} tokens/s, {best['cpu']:8,.0f} per processor second, "
                f"{peak:6,.0f} MiB"
            )


if __name__ == "__main__":
    main()
