"""Engines that guess, from every source, and a draft model that is always right or always wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from fireside.engine.engine import Engine
from fireside.engine.runner import ForwardBatch
from fireside.engine.speculation.costs import _SHAPE, PassCosts
from fireside.engine.speculation.draft_model import DraftModel
from fireside.engine.speculation.lookup import Source
from fireside.engine.speculation.speculator import Speculator
from tests.engine.fake_runner import FakeRunner

TYPICAL = PassCosts(_SHAPE)
TYPICAL_DRAFT = PassCosts({size: 0.1 * cost for size, cost in _SHAPE.items()})
FEW = 3  # tokens in the vocabulary: so that texts repeat, and guesses are often right


class ContraryRunner(FakeRunner):
    """Takes the likeliest token for the least likely, and the other way round."""

    def forward(self, batch: ForwardBatch) -> Tensor:
        return -super().forward(batch)


class MoodyRunner(FakeRunner):
    """Contrary about every third text."""

    def forward(self, batch: ForwardBatch) -> Tensor:
        logits = super().forward(batch)
        return torch.where(logits[:, :1] > 0.4, -logits, logits)


DRAFTS: dict[str, type[FakeRunner] | None] = {
    "none": None, "right": FakeRunner, "wrong": ContraryRunner, "moody": MoodyRunner
}  # fmt: skip


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
    model = None if kind is None else DraftModel(kind(num_blocks, vocab_size=vocab), TYPICAL_DRAFT)
    return Engine(
        FakeRunner(num_blocks, vocab_size=vocab),
        max_context=max_context,
        max_batch_tokens=max_batch_tokens,
        max_running=max_running,
        max_waiting=1000,
        speculator=Speculator(max_draft, costs=TYPICAL, recent_outputs=recent, draft_model=model)
        if max_draft
        else None,
    )


def check_draft_cache(engine: Engine) -> None:
    """Raises AssertionError unless the draft model's blocks hold just what is believed of them."""
    if engine._speculator is None or engine._speculator.draft_model is None:
        return
    runner = engine._speculator.draft_model.runner
    assert isinstance(runner, FakeRunner)
    size = runner.block_size
    for sequence in engine.scheduler.running:
        held = [token for block in sequence.block_table for token in runner.memory[block]]
        known = sequence.num_draft_computed
        assert known < sequence.num_tokens
        assert tuple(held[:known]) == sequence.tokens(0, known)
    for node in engine.blocks.cache.nodes():
        if node.draft_computed:
            assert tuple(runner.memory[node.block]) == node.tokens
            assert len(node.tokens) == size


def drafted(engine: Engine, source: Source | None = None) -> int:
    counts = engine.stats.drafted_tokens
    return sum(counts.values()) if source is None else counts[source]


def accepted(engine: Engine, source: Source | None = None) -> int:
    counts = engine.stats.accepted_tokens
    return sum(counts.values()) if source is None else counts[source]
