"""Engines that guess, from every source, and a draft model that is always right or always wrong."""

from __future__ import annotations

from torch import Tensor

from fireside.engine.engine import Engine
from fireside.engine.runner import ForwardBatch
from fireside.engine.speculation.draft_model import DraftModel
from fireside.engine.speculation.lookup import Source
from fireside.engine.speculation.speculator import Speculator
from tests.engine.fake_runner import FakeRunner

FEW = 3  # tokens in the vocabulary: so that texts repeat, and guesses are often right


class ContraryRunner(FakeRunner):
    """Takes the likeliest token for the least likely, and the other way round."""

    def forward(self, batch: ForwardBatch) -> Tensor:
        return -super().forward(batch)


DRAFTS: dict[str, type[FakeRunner] | None] = {"none": None, "right": FakeRunner, "wrong": ContraryRunner}


def guessing(
    max_draft: int = 7,
    *,
    draft: str = "none",
    recent: bool = True,
    vocab: int = FEW,
    num_blocks: int = 64,
    max_context: int = 200,
    max_batch_tokens: int = 32,
    max_running: int = 64,
) -> Engine:
    """`draft`: one of `DRAFTS`. `max_draft` 0 guesses nothing."""
    kind = DRAFTS[draft]
    model = None if kind is None else DraftModel(kind(num_blocks, vocab_size=vocab))
    return Engine(
        FakeRunner(num_blocks, vocab_size=vocab),
        max_context=max_context,
        max_batch_tokens=max_batch_tokens,
        max_running=max_running,
        max_waiting=1000,
        speculator=Speculator(max_draft, recent_outputs=recent, draft_model=model) if max_draft else None,
    )


def drafted(engine: Engine, source: Source | None = None) -> int:
    counts = engine.stats.drafted_tokens
    return sum(counts.values()) if source is None else counts[source]


def accepted(engine: Engine, source: Source | None = None) -> int:
    counts = engine.stats.accepted_tokens
    return sum(counts.values()) if source is None else counts[source]
