"""How the tokens of a packed row see each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class DocumentAttention:
    """Each token sees itself and those before it in its own document, at most `window` of them.

    With it a packed row gives what its documents would give in rows of their own. document_ids: int64 [B, T].
    """

    def __init__(self, document_ids: Tensor, window: int | None = None) -> None:
        index = torch.arange(document_ids.shape[1], device=document_ids.device)
        distance = index[:, None] - index
        seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        self._mask = (seen & (document_ids[:, :, None] == document_ids[:, None, :]))[:, None]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=self._mask,
            enable_gqa=True,
        )
        return attended.transpose(1, 2)
