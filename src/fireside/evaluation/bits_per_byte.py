"""Bits per byte: how well a model predicts text, whatever its vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fireside.data.batch import IGNORED, Batch
from fireside.models.decoder import Decoder
from fireside.tokenizers.tokenizer import Tokenizer


def token_byte_counts(tokenizer: Tokenizer, vocab_size: int) -> Tensor:
    """UTF-8 bytes that each token stands for, int64 [vocab_size]; 0 for control tokens, which are no text."""
    special = tokenizer.special_token_ids
    return torch.tensor([0 if i in special else len(tokenizer.token_bytes(i)) for i in range(vocab_size)])


@torch.no_grad()
def bits_per_byte(
    decoder: Decoder,
    batches: Iterable[Batch],
    byte_counts: Tensor,
    summed_loss: Callable[[Decoder, Batch], Tensor],
) -> float:
    """Bits that the targets of `batches` take, per byte of their text. NaN if there is no text.

    summed_loss: nats over a batch's targets. Control tokens are left out on both sides, as in nanochat.
    """
    was_training = decoder.training
    decoder.eval()
    nats, count = 0.0, 0
    for batch in batches:
        lengths = torch.where(batch.labels == IGNORED, 0, byte_counts[batch.labels.clamp(min=0)])
        labels = torch.where(lengths == 0, IGNORED, batch.labels)
        parts = (batch.input_ids, labels, batch.document_ids, batch.positions)
        nats += float(summed_loss(decoder, Batch(*(part.to(decoder.device) for part in parts))))
        count += int(lengths.sum())
    decoder.train(was_training)
    return nats / math.log(2) / count if count else math.nan
