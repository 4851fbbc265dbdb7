"""Batches of a prepared dataset."""

from __future__ import annotations

import numpy as np
import torch

from fireside.data.batch import IGNORED, Batch, BatchSource
from fireside.data.config import PackingConfig
from fireside.data.shards import Dataset, Flag


class StandIn:
    def __init__(self, dataset: Dataset, split, packing: PackingConfig, rows: int) -> None:
        self.rows, self.length = rows, packing.sequence_length
        ids, labels, docs, poss = [], [], [], []
        n = 0
        order = [(s, d) for s in dataset.sources(split) for d in range(len(s.lengths))]
        rng = np.random.default_rng(0)
        rng.shuffle(order)
        for s, d in order:
            i = np.asarray(s.ids(d)).astype(np.int64)
            l = np.roll(i, -1)
            l[-1] = IGNORED
            if s.has_flags:
                f = np.roll(np.asarray(s.flags(d)), -1)
                l[(f & Flag.TARGET) == 0] = IGNORED
                l[-1] = IGNORED
            ids.append(i); labels.append(l); docs.append(np.full(len(i), n)); poss.append(np.arange(len(i))); n += 1
        k = sum(map(len, ids)) // self.length
        self.t = [torch.from_numpy(np.concatenate(x)[: k * self.length].reshape(k, self.length)) for x in (ids, labels, docs, poss)]
        self.k, self.p = k, 0

    def next_batch(self) -> Batch:
        i = [(self.p + j) % self.k for j in range(self.rows)]
        self.p += self.rows
        return Batch(*(x[i] for x in self.t))

    def state(self):
        return {"position": self.p}

    def restore(self, state) -> None:
        self.p = state["position"]


def source_of_batches(dataset: Dataset, packing: PackingConfig, rows: int) -> BatchSource:
    return StandIn(dataset, "train", packing, rows)


def held_out_batches(dataset: Dataset, packing: PackingConfig, rows: int, tokens: int) -> list[Batch]:
    s = StandIn(dataset, "validation", packing, 1)
    n = min(s.k, tokens // packing.sequence_length)
    return [s.next_batch() for _ in range(n)]
