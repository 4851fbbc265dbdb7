"""How many tokens a second training makes, ours beside Hugging Face's Trainer and litgpt's pretraining.

    .venv/bin/python -m benchmarks.training [--peers VENV] [--threads N] [--rounds N] [--steps N]

The same shapes for all: vocabulary 4,096, 256 wide, 4 layers, context 256, 16 rows a step, AdamW, clipping at 1, in
float32 and with bfloat16 products. Each measurement is a process of its own; the contenders take turns, so that a
machine is as busy for all. Printed are the median step's tokens per second, by the clock and by the processor's time
(which leaves out what others take), the best of the rounds of each, and the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import Machine

ROOT = Path(__file__).parent.parent
PRECISIONS = ("fp32", "bf16")


def measure(contender: str, python: Path, precision: str, threads: int, steps: int) -> dict[str, float]:
    """One contender in a process of its own."""
    command = [python, "-m", f"benchmarks.trainers.{contender}", precision, str(threads), str(steps)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore"}
    )
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=Path, default=ROOT / ".peers" / "training", help="litgpt's virtual environment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    # Not resolved: the link is what makes a Python that environment's.
    contenders = {"fireside_loop": Path(sys.executable), "transformers_trainer": Path(sys.executable)}
    if (peer := options.peers.absolute() / "bin" / "python").exists():
        contenders["litgpt_pretrain"] = peer
    else:
        print(f"without litgpt: there is no {peer} (make peers)", file=sys.stderr)
    print(Machine.here())
    print(f"{options.threads} threads, {options.rounds} rounds of {options.steps} steps")
    for precision in PRECISIONS:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, python in contenders.items():
                found[name].append(measure(name, python, precision, options.threads, options.steps))
        for name, results in found.items():
            best = {key: max(result[key] for result in results) for key in ("wall", "cpu")}
            peak = statistics.median(result["peak_mib"] for result in results)
            print(
                f"{precision} {name:21} {best['wall']:8,.0f} tokens/s, {best['cpu']:8,.0f} per processor second, "
                f"{peak:6,.0f} MiB"
            )


if __name__ == "__main__":
    main()
