"""What is held out: a fair draw, whatever the memory."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from fireside.data.config import PackingConfig
from fireside.data.shards import Dataset, SourceTokens
from fireside.training.batches import held_out_batches


class TwoSources:
    def sources(self, split: str) -> list[SourceTokens]:
        assert split == "validation"
        return [
            SourceTokens.from_documents(name, [(np.full(9, first + n, np.uint16), None) for n in range(100)], weight=w)
            for name, first, w in (("a", 0, 9.0), ("b", 500, 1.0))
        ]


def drawn(rows: int, tokens: int) -> torch.Tensor:
    packing = PackingConfig(sequence_length=8)
    dataset = cast(Dataset, TwoSources())
    batches = held_out_batches(dataset, packing, rows=rows, tokens=tokens, are_chats=False)
    assert all(len(batch.input_ids) <= rows for batch in batches)
    return torch.cat([batch.input_ids for batch in batches])


def test_held_out_rows_are_of_all_sources_and_the_same_for_any_micro_batch() -> None:
    few = drawn(rows=3, tokens=8 * 40)
    assert few.shape == (40, 8) and 10 < int((few >= 500).any(-1).sum()) < 30
    assert torch.equal(few, drawn(rows=7, tokens=8 * 40))
    assert len(few[:, 0].unique()) == 40
    assert len(drawn(rows=7, tokens=10_000)[:, 0].unique()) == 200
