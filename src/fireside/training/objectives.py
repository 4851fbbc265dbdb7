"""Objectives: what a stage wants less of. Pure functions of a model and a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fireside.data.batch import Batch
from fireside.models.decoder import Decoder
from fireside.models.layers import Attend
from fireside.training.attention import RowAttention
from fireside.training.cross_entropy import summed_cross_entropy

Objective = Callable[[Decoder, Batch], Tensor]
"""Maps (decoder, batch) to the summed loss, float32 []. The loop divides by the number of targets of the whole step,
so that the gradient does not depend on how a step is cut into micro-batches."""


def next_token(decoder: Decoder, batch: Batch) -> Tensor:
    """Summed cross-entropy of each token's successor, in nats; tokens see what stands before them in their row.

    Pretraining and supervised fine-tuning both: which tokens count, the labels say.
    """
    length, device = batch.input_ids.shape[1], batch.input_ids.device
    attend = RowAttention(length, device, decoder.config.sliding_window)
    return _cross_entropy(decoder, batch, torch.arange(length, device=device)[None], attend)


def next_token_within_documents(decoder: Decoder, batch: Batch) -> Tensor:
    """`next_token` where a token sees its own document only, with positions from the document's start."""
    length, device = batch.input_ids.shape[1], batch.input_ids.device
    attend = RowAttention(length, device, decoder.config.sliding_window, batch.document_ids)
    return _cross_entropy(decoder, batch, batch.positions, attend)


def _cross_entropy(decoder: Decoder, batch: Batch, positions: Tensor, attend: Attend) -> Tensor:
    hidden = decoder.hidden_states(batch.input_ids, positions, attend)
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    return summed_cross_entropy(hidden.flatten(0, 1), decoder.head_weight, batch.labels.flatten())
