"""What every trainer is given and asked for: shapes, rows, and how long its steps took.

Works in any environment that has PyTorch: it knows nothing of Fireside.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch

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
WARM_UP = 3  # steps that allocate, or compile


class Stopwatch:
    """Times between marks, one a step, by the clock and by the processor."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def result(self) -> dict[str, float]:
        pairs = list(zip(self.marks[WARM_UP:], self.marks[WARM_UP + 1 :], strict=False))
        return {
            "wall": ROWS * LENGTH / statistics.median(b[0] - a[0] for a, b in pairs),
            "cpu": ROWS * LENGTH / statistics.median(b[1] - a[1] for a, b in pairs),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def random_row(index: int, length: int = LENGTH) -> torch.Tensor:
    """Token ids, int64 [length], the same for the same index."""
    return torch.randint(0, VOCAB, (length,), generator=torch.Generator().manual_seed(index))


def serve(train: Callable[[str, int, Stopwatch], None]) -> None:
    """Runs `train(precision, steps, watch)` as the command line says, and prints what the watch saw."""
    precision, threads, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    watch = Stopwatch()
    train(precision, steps, watch)
    print()
    print(json.dumps(watch.result()))
