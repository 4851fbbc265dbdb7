"""What does computing with quantised weights cost in quality? Perplexity on held-out text, four ways, one checkpoint.

    .venv/bin/python -m benchmarks.quality TEXT [--model MODEL] [--tokens 100000] [--json FILE]

The engine's default path (weights as stored; on a CPU activations in 8 bits), also with keys and values in 8 bits, is
held against the same weights in float32, computed by our own kernels and by transformers where that is installed. TEXT
is a .txt file, or a .parquet file with a column `text` where pyarrow is installed. It is cut into windows of 512
tokens, each scored by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.machine import Machine
from torch import Tensor

from fireside.engine.backend import load_runner
from fireside.engine.messages import WorkerConfig
from fireside.engine.resources import available_cores
from fireside.engine.runner import ForwardBatch
from fireside.errors import FiresideError
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from fireside.models.local import DEFAULT_ALIAS, LocalModel, resolve_model
from fireside.models.saving import save_pretrained
from fireside.settings import load_settings
from fireside.tokenizers.tokenizer import Tokenizer

WINDOW = 512

Logits = Callable[[Tensor], Tensor]  # of a window: int64 [WINDOW] to float32 [WINDOW - 1, vocab]


@dataclass(frozen=True)
class Scores:
    """One way of computing the model. losses: the mean negative log-likelihood of each window, in nats per token."""

    name: str
    losses: list[float]
    tokens_per_second: float

    @property
    def perplexity(self) -> float:
        return math.exp(sum(self.losses) / len(self.losses))

    def ratio(self, reference: Scores) -> tuple[float, float]:
        """Of this perplexity to the reference's, and its standard error, from the windows taken in pairs."""
        differences = [ours - theirs for ours, theirs in zip(self.losses, reference.losses, strict=True)]
        count = len(differences)
        mean = sum(differences) / count
        variance = sum((difference - mean) ** 2 for difference in differences) / max(1, count - 1)
        return math.exp(mean), math.exp(mean) * math.sqrt(variance / count)


def engine_logits(model: LocalModel, dtype: str, cache_dtype: str, threads: int) -> tuple[str, Logits]:
    """The engine's forward pass, as `dtype` and `kv_cache_dtype` of `Settings` have it, and its name."""
    config = WorkerConfig(
        model=str(model.path), name=model.name, threads=threads,
        dtype=dtype, kv_cache_dtype=cache_dtype, kv_cache_memory=1 << 30,
    )  # fmt: skip
    runner = load_runner(open_checkpoint(model.path), config, WINDOW)
    blocks = WINDOW // runner.block_size

    def logits(window: Tensor) -> Tensor:
        return runner.forward(
            ForwardBatch(
                token_ids=window.int(),
                positions=torch.arange(WINDOW, dtype=torch.int32),
                query_starts=torch.tensor([0, WINDOW], dtype=torch.int32),
                context_lengths=torch.tensor([WINDOW], dtype=torch.int32),
                block_tables=torch.arange(blocks, dtype=torch.int32)[None],
                logit_indices=torch.arange(WINDOW - 1, dtype=torch.int32),
            )
        )

    cache = str(next(iter(runner.cache_tensors.values())).dtype).removeprefix("torch.")
    return f"fireside {runner.backend}, {runner.dtype}, cache {cache}", logits


@contextmanager
def transformers_logits(model: LocalModel) -> Iterator[tuple[str, Logits]]:
    """The same weights in float32 through transformers, from a folder that lasts as long as the context."""
    import transformers  # a dependency of the tests alone

    with tempfile.TemporaryDirectory(prefix="fireside-benchmark-") as parent:
        folder = model.path
        if model.format == "gguf":
            folder = Path(parent) / "float32"
            save_pretrained(load_decoder(open_checkpoint(model.path), torch.float32), folder)
        network: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

        def logits(window: Tensor) -> Tensor:
            scored: Tensor = network(window[None], use_cache=False).logits[0, :-1]
            return scored

        yield f"transformers {transformers.__version__}, float32", logits


@torch.inference_mode()
def score(name: str, logits: Logits, windows: Tensor) -> Scores:
    """`windows`: int64 [count, WINDOW]. The first token of each is given."""
    started = time.perf_counter()
    losses: list[float] = []
    for window in windows:
        losses.append(F.cross_entropy(logits(window), window[1:]).item())
        print(f"\r{name}: {len(losses)} of {len(windows)} windows", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Scores(name, losses, windows.numel() / (time.perf_counter() - started))


def read_windows(path: Path, tokenizer: Tokenizer, tokens: int) -> Tensor:
    """As many whole windows as `tokens` fill, from the beginning of the text: int64 [count, WINDOW]."""
    ids: list[int] = []
    for text in _documents(path):
        ids += tokenizer.encode(text, add_bos=False)
        if len(ids) >= tokens:
            break
    count = min(tokens, len(ids)) // WINDOW
    if not count:
        raise SystemExit(f"{path} has {len(ids)} tokens, which do not fill one window of {WINDOW}")
    return torch.tensor(ids[: count * WINDOW]).reshape(count, WINDOW)


def _documents(path: Path) -> Iterator[str]:
    if path.suffix != ".parquet":
        with path.open(encoding="utf-8") as file:
            while piece := file.read(1 << 20):
                yield piece
        return
    if find_spec("pyarrow") is None:
        raise SystemExit(f"{path} needs pyarrow, which is not installed: install it, or give a .txt file")
    from pyarrow import parquet  # type: ignore[import-not-found]

    for batch in parquet.ParquetFile(path).iter_batches(batch_size=16, columns=["text"]):
        yield from batch.column("text").to_pylist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="held-out text: .txt or .parquet")
    parser.add_argument("--model", default=DEFAULT_ALIAS, help="name or path; the default model if not given")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()

    model = resolve_model(options.model, load_settings())
    windows = read_windows(options.text, model.load_tokenizer(), options.tokens)
    torch.set_num_threads(options.threads)
    ways = [("float32", "auto"), ("auto", "auto"), ("auto", "int8")]
    scores = [score(*engine_logits(model, *types, options.threads), windows) for types in ways]
    if find_spec("transformers") is None:
        print("transformers is not installed here (make test installs it): not compared", file=sys.stderr)
    else:
        with transformers_logits(model) as (name, logits):
            scores.append(score(name, logits, windows))

    print(
        f"{Machine.here()}\n{model.name}, {windows.numel():,} tokens of {options.text.name}, {options.threads} threads"
    )
    print(f"{'':44}{'perplexity':>12}{'tokens/s':>10}   of the first")
    for scored in scores:
        ratio, error = scored.ratio(scores[0])
        compared = "" if scored is scores[0] else f"   {100 * (ratio - 1):+.3f} % +- {100 * error:.3f}"
        print(f"{scored.name:44}{scored.perplexity:12.4f}{scored.tokens_per_second:10.0f}{compared}")
    if options.json:
        facts = {
            "machine": asdict(Machine.here()), "model": model.name, "text": options.text.name,
            "tokens": windows.numel(), "scores": [asdict(scored) for scored in scores],
        }  # fmt: skip
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (FiresideError, OSError) as error:
        raise SystemExit(f"benchmarks.quality: {error}") from None
