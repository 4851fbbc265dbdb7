"""`Scheduler`: which sequences get how many tokens in the next step."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter
from typing import NamedTuple

from fireside.engine.blocks import BlockManager
from fireside.engine.prefix_cache import Node
from fireside.engine.sequence import Sequence, SequenceState

_order = attrgetter("order")


class Chunk(NamedTuple):
    """Known tokens [start, end) of a sequence, to be computed in this step. Their blocks are in place."""

    sequence: Sequence
    start: int
    end: int


class Scheduler:
    """Continuous batching with chunked prefill.

    Everything goes by one order, (priority, arrival): queue, share of a step, and, from the other end, preemption.
    Whoever is first in it can take the blocks of all others and waits for nobody, so it always ends; hence everybody
    of its priority does in time.

    A step has `max_batch_tokens` tokens. Every decoding sequence gets one of them first, so a long prompt never stalls
    the others; what is left goes to forced tokens and prompts, in order.
    """

    def __init__(self, blocks: BlockManager, *, max_batch_tokens: int, max_running: int) -> None:
        self.blocks = blocks
        self.max_batch_tokens = max_batch_tokens
        self.max_running = min(max_running, max_batch_tokens)  # each running sequence may need a token of every step
        self.waiting: list[Sequence] = []  # in order
        self.running: list[Sequence] = []  # in order
        self.num_preemptions = 0
        self.num_prompt_tokens = 0
        self.num_cache_hit_tokens = 0

    def add(self, sequence: Sequence) -> None:
        sequence.state = SequenceState.WAITING
        insort(self.waiting, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        """Ends a sequence in whatever state it is; its blocks are free at once."""
        if sequence.state is SequenceState.RUNNING:
            self.running.remove(sequence)
            self.blocks.release(sequence)
        elif sequence.state is SequenceState.WAITING:
            self.waiting.remove(sequence)
        sequence.state = SequenceState.FINISHED
        sequence.awaits = None

    def schedule(self) -> list[Chunk]:
        """The next step's work; empty only if nothing runs or waits."""
        self._yield_to_priority()
        chunks: list[Chunk] = []
        budget = self.max_batch_tokens - sum(sequence.decoding for sequence in self.running)
        for sequence in self.running.copy():
            if sequence.state is not SequenceState.RUNNING:
                break  # preempted for one before it, as are all that follow
            if self.waiting and not sequence.decoding:
                budget = self._admit(budget, chunks, before=sequence)
            start = sequence.num_computed
            floor = int(sequence.decoding)
            end = min(sequence.num_tokens + len(sequence.draft), start + floor + budget)
            if sequence.draft and not self.blocks.extend(sequence, end, reserve=len(self.running)):
                end = start + floor  # nobody gives up blocks for a guess
            if end == start or not self._make_room(sequence, end):
                continue
            budget -= end - start - floor
            chunks.append(Chunk(sequence, start, end))
        self._admit(budget, chunks)
        return chunks

    def commit(self, chunks: list[Chunk]) -> None:
        """The chunks have been computed: their full blocks can be shared from now on."""
        for sequence, _, end in chunks:
            self.advance(sequence, min(end, sequence.num_tokens))  # guesses count once they are accepted

    def advance(self, sequence: Sequence, num_computed: int) -> None:
        """So many of the sequence's tokens have keys and values now."""
        sequence.num_computed = num_computed
        if num_computed // self.blocks.block_size > len(sequence.nodes):
            self.blocks.commit(sequence)

    def preempt(self, sequence: Sequence) -> None:
        """Back to the queue without blocks. It starts again from what the cache still holds by then."""
        self.running.remove(sequence)
        self.blocks.release(sequence)
        sequence.decoding = False
        sequence.draft = []
        self.num_preemptions += 1
        self.add(sequence)

    def _make_room(self, sequence: Sequence, num_tokens: int) -> bool:
        """Blocks for the first `num_tokens`, taken from the last in order if need be. False if that was itself."""
        while not self.blocks.extend(sequence, num_tokens):
            victim = self.running[-1]
            self.preempt(victim)
            if victim is sequence:
                return False
        return True

    def _yield_to_priority(self) -> None:
        """Preempts for the first in the queue, if what runs is of lower priority and leaves it no room."""
        if not self.waiting:
            return
        first = self.waiting[0]
        while (
            self.running
            and self.running[-1].order[0] > first.order[0]
            and not self._is_awaiting(first)
            and not self._can_admit(first, self.blocks.match(first))
        ):
            self.preempt(self.running[-1])

    def _admit(self, budget: int, chunks: list[Chunk], before: Sequence | None = None) -> int:
        """Lets sequences run while tokens, slots and blocks last, strictly in order; returns the tokens left.

        None of them is preempted in the same step: room is made only for one before the victim, and those are served.
        """
        for sequence in self.waiting.copy():
            if budget == 0 or len(self.running) >= self.max_running:
                break
            if before is not None and sequence.order > before.order:
                break
            if self._is_awaiting(sequence):
                continue  # it would compute what another is computing right now
            path = self.blocks.match(sequence)
            sequence.awaits = self._find_same_prefix(sequence, len(path))
            if sequence.awaits is not None:
                continue
            if not self._can_admit(sequence, path):
                break
            self.waiting.remove(sequence)
            sequence.state = SequenceState.RUNNING
            insort(self.running, sequence, key=_order)
            self.blocks.attach(sequence, path)
            if sequence.cached_tokens is None:
                # A grammar may have forced tokens after the prompt already: those can be in the cache too.
                sequence.cached_tokens = min(sequence.num_computed, len(sequence.prompt_ids))
                self.num_cache_hit_tokens += sequence.cached_tokens
                self.num_prompt_tokens += len(sequence.prompt_ids)
            start = sequence.num_computed
            end = min(sequence.num_tokens, start + budget)
            if not self.blocks.extend(sequence, end):
                raise AssertionError(f"{sequence} was admitted without blocks")
            budget -= end - start
            chunks.append(Chunk(sequence, start, end))
        return budget

    def _can_admit(self, sequence: Sequence, path: list[Node]) -> bool:
        # One block is kept for each running sequence, which may need it in the next step.
        running = len(self.running)
        return running < self.max_running and self.blocks.fits(sequence, path, reserve=running)

    def _is_awaiting(self, sequence: Sequence) -> bool:
        """Whether the tokens that it waits for are still on their way."""
        if sequence.awaits is None:
            return False
        other, num_tokens = sequence.awaits
        if other.state is SequenceState.RUNNING and other.num_computed < num_tokens:
            return True
        sequence.awaits = None
        return False

    def _find_same_prefix(self, sequence: Sequence, num_cached: int) -> tuple[Sequence, int] | None:
        """A running sequence that is about to fill more of this one's blocks than the `num_cached` in the cache.

        Only one before it in order, which never waits for it in turn and gets its tokens sooner: so nobody starves.
        """
        size = self.blocks.block_size
        start = num_cached * size
        limit = min(sequence.num_cacheable, len(sequence.prompt_ids))
        if start + size > limit:
            return None
        prompt = sequence.prompt_ids
        for other in self.running:
            if other.order > sequence.order:
                break
            theirs = other.prompt_ids
            end = start + size
            if other.decoding or theirs[start:end] != prompt[start:end] or theirs[:start] != prompt[:start]:
                continue
            while end + size <= limit and theirs[end : end + size] == prompt[end : end + size]:
                end += size
            if other.num_computed < end:
                return other, end
        return None
