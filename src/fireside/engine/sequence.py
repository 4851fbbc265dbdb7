"""`Sequence`: one request inside the engine, from submission to its last token."""

from __future__ import annotations

from array import array
from enum import Enum
from typing import TYPE_CHECKING

from fireside.engine.messages import FinishReason, GenerationRequest, TokenLogprobs

if TYPE_CHECKING:
    from fireside.engine.grammar import GrammarMatcher
    from fireside.engine.prefix_cache import Node
    from fireside.engine.speculation.speculator import Guesser


class SequenceState(Enum):
    """Where a sequence is. COMPILING -> WAITING <-> RUNNING -> FINISHED; any state may go to FINISHED."""

    COMPILING = "compiling"  # not in the queue yet: its grammar, if it has one, is being compiled in another thread
    WAITING = "waiting"  # in the queue, holds no blocks; new, or preempted
    RUNNING = "running"  # holds blocks and gets tokens in every step that has room
    FINISHED = "finished"  # holds nothing


class Sequence:
    """The tokens of one request, how far they have been computed, and when they end.

    A sequence is a list of known tokens (prompt, then output) of which the first `num_computed` have keys and values
    in blocks. Prefill, decode and forced tokens differ only in how many known tokens are still to be computed.

    request, order: what was asked, and the sort key (priority, arrival) that rules queue, budget and preemption.
    max_length: tokens that prompt and output may have together.
    output_ids: generated tokens; the first `num_emitted` have been sent.
    block_table: physical block of each `block_size` positions (array of int32).
    nodes: the leading blocks of `block_table` that the prefix cache knows; this sequence holds a reference to each.
    num_computed: known tokens whose keys and values exist.
    num_scored: known tokens that need no log-probability from a later forward pass (known already, or not wanted).
    decoding: it has caught up with its known tokens since it was admitted, so every step gives it at least one token.
    draft: guesses of what follows the known tokens, checked by the step that they were made for; see `speculation`.
    guesser: where its guesses come from, if it is guessed for.
    num_draft_computed: tokens whose keys and values the draft model has computed too, guesses among them.
    awaits: (another sequence, n): that one is computing the first n tokens of this prompt; worth waiting for.
    cached_tokens: prompt tokens that came from the prefix cache; None until it was first admitted.
    finish_reason: set as soon as the end is known; the sequence then only waits for log-probabilities still missing.
    stopped_by: the stop token that ended it, which is then the last of `output_ids`.
    """

    __slots__ = (
        "awaits",
        "block_table",
        "cached_tokens",
        "decoding",
        "draft",
        "finish_reason",
        "guesser",
        "logprobs",
        "matcher",
        "max_length",
        "nodes",
        "num_computed",
        "num_draft_computed",
        "num_emitted",
        "num_scored",
        "order",
        "output_ids",
        "prompt_ids",
        "prompt_logprobs",
        "request",
        "sampling",
        "state",
        "stop_token_ids",
        "stopped_by",
    )

    def __init__(self, request: GenerationRequest, arrival: int, max_context: int) -> None:
        sampling = request.sampling
        self.request = request
        self.sampling = sampling
        self.order = (request.priority, arrival)
        self.state = SequenceState.COMPILING
        self.prompt_ids = request.prompt_ids
        self.output_ids: list[int] = []
        self.max_length = min(len(request.prompt_ids) + sampling.max_tokens, max_context)
        self.stop_token_ids = frozenset(sampling.stop_token_ids)
        self.matcher: GrammarMatcher | None = None

        self.block_table: array[int] = array("i")
        self.nodes: list[Node] = []
        self.num_computed = 0
        self.decoding = False
        self.draft: list[int] = []
        self.guesser: Guesser | None = None
        self.num_draft_computed = 0
        self.awaits: tuple[Sequence, int] | None = None
        self.cached_tokens: int | None = None

        wants_prompt = sampling.prompt_logprobs is not None
        self.num_scored = 1 if wants_prompt else len(request.prompt_ids)  # the first token has nothing before it
        self.prompt_logprobs: list[TokenLogprobs | None] | None = [None] if wants_prompt else None
        self.logprobs: list[TokenLogprobs] | None = [] if sampling.logprobs is not None else None
        self.num_emitted = 0
        self.finish_reason = None if sampling.max_tokens else FinishReason.LENGTH
        self.stopped_by: int | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def score_end(self) -> int:
        """How many leading tokens need log-probabilities by the end."""
        return self.num_tokens if self.logprobs is not None else len(self.prompt_ids)

    @property
    def num_cacheable(self) -> int:
        """Leading tokens that may come from the cache: all before the first position whose logits are needed."""
        return (self.num_scored if self.num_scored < self.score_end else self.num_tokens) - 1

    @property
    def num_ready(self) -> int:
        """Output tokens that can be sent: with their log-probabilities, if those were asked for."""
        return len(self.output_ids) if self.logprobs is None else len(self.logprobs)

    @property
    def is_complete(self) -> bool:
        """Its end is known and no log-probability is missing."""
        return self.finish_reason is not None and self.num_scored >= self.score_end

    @property
    def may_stop(self) -> bool:
        """Stop tokens are allowed from `min_tokens` on."""
        return len(self.output_ids) >= self.sampling.min_tokens

    def tokens(self, start: int, end: int) -> tuple[int, ...]:
        """Known tokens [start, end), and guesses where `end` goes beyond them."""
        boundary = len(self.prompt_ids)
        if end <= boundary:
            return self.prompt_ids[start:end]
        if end > self.num_tokens:
            known = self.num_tokens
            return (*self.tokens(start, known), *self.draft[max(0, start - known) : end - known])
        if start >= boundary:
            return tuple(self.output_ids[start - boundary : end - boundary])
        return (*self.prompt_ids[start:], *self.output_ids[: end - boundary])

    def append(self, token_id: int, logprobs: TokenLogprobs | None) -> int:
        """Adds a token that was drawn, and those forced after it; returns how many these are. Raises GrammarError."""
        self.output_ids.append(token_id)
        if self.logprobs is not None and logprobs is not None:
            self.logprobs.append(logprobs)
            self.num_scored += 1
        if token_id in self.stop_token_ids:
            self._stop(token_id)
        elif self.matcher is not None:
            self.matcher.consume(token_id)
            if token_id in self.matcher.eos_token_ids:
                self._stop(token_id)
            else:
                return self.append_forced()
        elif self.num_tokens >= self.max_length:
            self.finish_reason = FinishReason.LENGTH
        return 0

    def append_forced(self) -> int:
        """Adds the tokens that the grammar leaves no choice about, and returns how many. Raises GrammarError.

        They end the sequence just as if they had been drawn.
        """
        if self.matcher is None or self.finish_reason is not None:
            return 0
        before = len(self.output_ids)
        for token_id in self.matcher.forced_tokens():
            if self.num_tokens >= self.max_length:
                break
            if token_id in self.stop_token_ids:
                if self.may_stop:
                    self.output_ids.append(token_id)
                    self._stop(token_id)
                else:
                    self.finish_reason = FinishReason.STOP  # nothing else can follow
                return len(self.output_ids) - before
            self.matcher.consume(token_id)
            self.output_ids.append(token_id)
        if self.matcher.is_stopped:
            self.finish_reason = FinishReason.STOP
        elif self.num_tokens >= self.max_length:
            self.finish_reason = FinishReason.LENGTH
        return len(self.output_ids) - before

    def _stop(self, token_id: int) -> None:
        self.finish_reason = FinishReason.STOP
        self.stopped_by = token_id

    def __repr__(self) -> str:
        return f"Sequence({self.request.id!r}, {self.state.value}, {self.num_computed}/{self.num_tokens})"
