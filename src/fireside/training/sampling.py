"""Samples for the record of a run: what the model says as it learns. Plain and slow; the engine serves."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fireside.models.decoder import Decoder
from fireside.training.export import ModelText

_TEMPERATURE = 0.8


@torch.no_grad()
def continue_text(
    decoder: Decoder,
    text: ModelText,
    prompt: str,
    tokens: int,
    *,
    as_chat: bool,
    agree: Callable[[int], int] = lambda chosen: chosen,
) -> str:
    """What the model writes after `prompt`; as_chat: answers to it as to a user's message, taking the likeliest.

    Every call draws the same numbers, and the generators of PyTorch are left alone. agree: what the first process gave,
    where several share a decoder: one that ended its text before the others would leave them waiting.
    """
    if as_chat and text.template is not None:
        ids = text.template.encode(text.tokenizer, [{"role": "user", "content": prompt}])
    else:
        ids = text.tokenizer.encode(prompt)
    generator = torch.Generator().manual_seed(0)
    start, context = len(ids), decoder.config.max_position_embeddings
    ends = text.tokenizer.special_token_ids
    was_training = decoder.training
    decoder.eval()
    while len(ids) - start < tokens and len(ids) < context:
        logits = decoder(torch.tensor([ids], device=decoder.device))[0, -1].float().cpu()
        drawn = torch.multinomial((logits / _TEMPERATURE).softmax(-1), 1, generator=generator)
        chosen = agree(int(logits.argmax() if as_chat else drawn))
        if chosen in ends:
            break
        ids.append(chosen)
    decoder.train(was_training)
    return text.tokenizer.decode(ids[start:])
