"""Guesses from a small model with the same tokenizer. Leviathan et al., "Fast Inference from Transformers via
Speculative Decoding" (2023), with guesses that are the draft model's likeliest tokens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from fireside.engine.batch import build_batch
from fireside.engine.scheduler import Chunk
from fireside.engine.speculation.acceptance import Rate
from fireside.engine.speculation.costs import PassCosts

if TYPE_CHECKING:
    from fireside.engine.runner import Runner
    from fireside.engine.sequence import Sequence

# Tokens that the draft model computes of texts it does not know yet, in one step: so nobody waits long for its guesses.
_CATCH_UP = 256
_FEW = 32  # a sequence that lags by no more is never held back
_EXPECTED = 0.7
_FIRST_PAUSE, _LONGEST_PAUSE = 32, 1024  # tokens


class DraftRate:
    """One request's acceptance of the draft model's guesses, and when to try again after it was too low.

    Unlike a match in a text, the draft model has to be run to learn whether it would have been right.
    """

    __slots__ = ("_pause", "_rate", "_try_at")

    def __init__(self) -> None:
        self._rate = Rate(_EXPECTED)
        self._pause = _FIRST_PAUSE
        self._try_at = 0

    @property
    def value(self) -> float:
        return self._rate.value

    def is_time_to_try(self, position: int) -> bool:
        """Whether guessing, which seems not to pay, should be tried at this length of the text all the same."""
        if position < self._try_at:
            return False
        self._try_at = position + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True

    def learn(self, num_drafted: int, num_accepted: int) -> None:
        for index in range(min(num_accepted + 1, num_drafted)):
            self._rate.observe(index < num_accepted)


class DraftModel:
    """Runs the draft model over the same blocks as the model: block b of its cache belongs to block b of the other.

    So prefix sharing, preemption and freeing need no second bookkeeping. Only how far its cache has come differs: it
    computes a sequence when guesses are wanted from it and not before, so that a request that is not guessed for costs
    nothing. `Sequence.num_draft_computed` counts, and `Node.draft_computed` remembers for whoever shares a block.
    """

    def __init__(self, runner: Runner, costs: PassCosts) -> None:
        self.runner = runner
        self.costs = costs

    def catch_up_seconds(self, sequence: Sequence) -> float:
        """What the next step's share of the sequence's text would take that is not computed yet, beyond one token."""
        lag = min(sequence.num_tokens - sequence.num_draft_computed, _CATCH_UP)
        return self.costs.of(lag) - self.costs.of(1)

    def draft(self, wanted: list[tuple[Sequence, int]], vocab_size: int) -> None:
        """Sets the draft of each sequence to at most so many tokens: none where its text is not computed yet.

        The block tables must have room for the drafts. `vocab_size`: ids that the model knows; the draft model's
        embedding may be padded differently.
        """
        budget = _CATCH_UP
        chunks: list[Chunk] = []
        ready: list[tuple[Sequence, int]] = []
        for sequence, count in wanted:
            start, end = sequence.num_draft_computed, sequence.num_tokens
            if end - start > _FEW:
                end = min(end, start + max(budget, 0))
            if end > start:
                budget -= end - start
                chunks.append(Chunk(sequence, start, end))
                if end == sequence.num_tokens:
                    ready.append((sequence, count))
        while chunks:
            self._forward(chunks, [sequence for sequence, _ in ready], vocab_size)
            ready = [(s, count) for s, count in ready if len(s.draft) < count and s.draft[-1] not in s.stop_token_ids]
            chunks = [Chunk(s, s.num_draft_computed, s.num_draft_computed + 1) for s, _ in ready]

    def _forward(self, chunks: list[Chunk], ready: list[Sequence], vocab_size: int) -> None:
        """Computes the chunks, and adds the likeliest next token to the drafts of those that are `ready`."""
        wanted = set(ready)
        logit_indices = []
        last = -1
        for sequence, start, end in chunks:
            last += end - start
            if sequence in wanted:
                logit_indices.append(last)
        batch = build_batch(chunks, logit_indices)
        # An id of the model's padding, should it ever be drawn, is beyond the draft model's embedding.
        batch.token_ids.clamp_(max=self.runner.vocab_size - 1)
        start_time = time.perf_counter()
        with torch.inference_mode():
            logits = self.runner.forward(batch)
            likeliest = logits[:, :vocab_size].argmax(-1).tolist() if ready else []
        if len(chunks) == len(batch.token_ids):
            self.costs.observe(len(chunks), time.perf_counter() - start_time)
        for sequence, _, end in chunks:
            sequence.num_draft_computed = end
            for node in reversed(sequence.nodes[: end // self.runner.block_size]):
                if node.draft_computed:
                    break  # and so are those before it
                node.draft_computed = True
        for sequence, token_id in zip(ready, likeliest, strict=True):
            sequence.draft.append(token_id)
