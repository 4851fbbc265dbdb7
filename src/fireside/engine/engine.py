"""`Engine`: many requests through one model. One step is schedule, forward, sample, report."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice, zip_longest

import torch
from torch import Tensor

from fireside.engine.batch import build_batch, int32
from fireside.engine.blocks import BlockManager
from fireside.engine.client import EngineBusy, RequestRejected
from fireside.engine.grammar import GrammarCompiler, GrammarError, GrammarMatcher
from fireside.engine.messages import EngineStats, FinishReason, GenerationOutput, GenerationRequest, Rejected
from fireside.engine.runner import Runner
from fireside.engine.sampler import SampledToken, Sampler, SamplingRow
from fireside.engine.sampling_draw import LogitsError
from fireside.engine.saved_prefixes import SavedPrefixes
from fireside.engine.scheduler import Chunk, Scheduler
from fireside.engine.sequence import Sequence, SequenceState
from fireside.engine.speculation.speculator import Speculator
from fireside.engine.validation import check_request

# How long a step waits when grammars are being compiled and there is nothing else to do.
_COMPILE_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class _Compilation:
    sequence: Sequence
    matcher: Future[GrammarMatcher]
    deadline: float  # of time.monotonic()


class Engine:
    """Runs one model. Not thread-safe: one thread submits, cancels and steps.

    max_context: tokens of prompt and answer together; less if all blocks together hold less.
    max_batch_tokens: tokens of one forward pass. max_running: sequences that hold blocks at the same time.
    max_waiting: length of the queue. grammar_timeout: seconds that a grammar may take to compile.
    speculator: guesses tokens; only for a runner that is batch-invariant, since a guess that changes rounding could
    change an answer. saved_prefixes: what it starts from, and leaves behind.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_context: int,
        max_batch_tokens: int = 512,
        max_running: int = 64,
        max_waiting: int = 256,
        grammar_compiler: GrammarCompiler | None = None,
        grammar_timeout: float = 10.0,
        speculator: Speculator | None = None,
        saved_prefixes: SavedPrefixes | None = None,
    ) -> None:
        if grammar_compiler is not None and grammar_compiler.vocab_size != runner.vocab_size:
            raise ValueError(f"grammars for {grammar_compiler.vocab_size} tokens, logits for {runner.vocab_size}")
        self.runner = runner
        self.max_context = min(max_context, runner.num_blocks * runner.block_size)
        self.max_waiting = max_waiting
        self.blocks = BlockManager(runner.num_blocks, runner.block_size)
        self.scheduler = Scheduler(self.blocks, max_batch_tokens=max_batch_tokens, max_running=max_running)
        self.sampler = Sampler()
        self._grammars = grammar_compiler
        self._grammar_timeout = grammar_timeout
        self._speculator = speculator
        self._masks = torch.zeros(max_running, -(-runner.vocab_size // 32), dtype=torch.int32)
        self._sequences: dict[str, Sequence] = {}
        self._compilations: dict[str, _Compilation] = {}
        self._reports: list[GenerationOutput | Rejected] = []  # what the next step returns
        self._num_arrivals = 0
        self._num_steps = 0
        self._num_generated = 0
        self._num_forced = 0
        self._saved_prefixes = saved_prefixes
        if saved_prefixes is not None:
            saved_prefixes.load(runner, self.blocks)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything. While it is False, wait for a request instead of stepping."""
        return bool(self._sequences or self._reports)

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self.scheduler.running),
            waiting=self._num_waiting,
            blocks_total=self.blocks.num_blocks,
            blocks_free=self.blocks.num_free,
            blocks_cached=self.blocks.cache.num_evictable,
            prompt_tokens=self.scheduler.num_prompt_tokens,
            generated_tokens=self._num_generated,
            cache_hit_tokens=self.scheduler.num_cache_hit_tokens,
            preemptions=self.scheduler.num_preemptions,
            steps=self._num_steps,
            forced_tokens=self._num_forced,
            drafted_tokens={} if self._speculator is None else dict(self._speculator.drafted),
            accepted_tokens={} if self._speculator is None else dict(self._speculator.accepted),
        )

    def submit(self, request: GenerationRequest) -> None:
        """Queues a request. Raises RequestRejected if it can never be served as it is, EngineBusy if the queue is full.

        A grammar is compiled in the background; if it cannot be used, a later step returns `Rejected`.
        """
        check_request(request, vocab_size=self.runner.vocab_size, max_context=self.max_context)
        if request.id in self._sequences:
            raise RequestRejected(f"A request with the id {request.id!r} is being served already.", "invalid")
        if request.grammar is not None and self._grammars is None:
            raise RequestRejected("This engine was started without support for grammars.", "grammar")
        if self._num_waiting >= self.max_waiting:
            raise EngineBusy(f"{self._num_waiting} requests are waiting, which is the most allowed; try again shortly.")
        sequence = Sequence(request, self._num_arrivals, self.max_context)
        self._num_arrivals += 1
        self._sequences[request.id] = sequence
        if request.grammar is None or self._grammars is None:
            self._enqueue(sequence)
        else:
            matcher = self._grammars.submit(request.grammar, request.sampling.stop_token_ids)
            self._compilations[request.id] = _Compilation(sequence, matcher, time.monotonic() + self._grammar_timeout)

    def cancel(self, request_id: str) -> None:
        """Ends a request: its blocks are free on return, and the next step reports it. An unknown id is one that ended
        a moment ago."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            sequence.finish_reason = FinishReason.CANCELLED
            self._reports.append(self._output(sequence, FinishReason.CANCELLED))
            self._remove(sequence)

    def step(self) -> list[GenerationOutput | Rejected]:
        """One forward pass for everybody. Returns who got what, and `Rejected` for those that cannot go on."""
        if self._compilations:
            self._collect_compiled()
        if self._speculator is not None:
            self._speculator.propose(self.scheduler.running, self.blocks, self.runner.vocab_size)
        chunks = self.scheduler.schedule()
        if chunks:
            self._run(chunks)
        elif self._compilations and not self._reports:
            wait([c.matcher for c in self._compilations.values()], _COMPILE_POLL_SECONDS, FIRST_COMPLETED)
        reports, self._reports = self._reports, []
        return reports

    def close(self) -> None:
        """Saves the preambles for the next engine of this model. Nothing is called after it."""
        if self._saved_prefixes is not None:
            self._saved_prefixes.save(self.runner, self.blocks)

    def check_integrity(self) -> None:
        """Raises AssertionError if a block is lost, held twice or wrongly counted. For tests and idle times."""
        self.blocks.check(self.scheduler.running)

    @property
    def _num_waiting(self) -> int:
        return len(self.scheduler.waiting) + len(self._compilations)

    def _collect_compiled(self) -> None:
        for compilation in list(self._compilations.values()):
            sequence = compilation.sequence
            if compilation.matcher.done():
                try:
                    sequence.matcher = compilation.matcher.result()
                    self._num_forced += sequence.append_forced()
                except GrammarError as error:
                    self._reject(sequence, "grammar", str(error))
                else:
                    del self._compilations[sequence.request.id]
                    self._enqueue(sequence)
            elif time.monotonic() > compilation.deadline:
                self._reject(sequence, "grammar", f"The grammar took over {self._grammar_timeout:g} s to compile.")

    def _enqueue(self, sequence: Sequence) -> None:
        if sequence.is_complete:  # nothing was asked for, or the grammar left no choice from start to end
            self._report(sequence)
        else:
            self.scheduler.add(sequence)

    def _run(self, chunks: list[Chunk]) -> None:
        """The step's forward pass, and what follows from its logits."""
        logit_indices: list[int] = []
        scores: list[tuple[Sequence, int, int]] = []  # sequence, its rows of the logits [first, last)
        draws: list[tuple[Sequence, int, int]] = []  # sequence, its first row of the logits, how many
        caught_up: list[Sequence] = []
        offset = 0  # from a position in the sequence to one in the batch
        for sequence, start, end in chunks:
            offset -= start
            if sequence.num_scored < sequence.score_end:
                # The logits at one position are about the token at the next.
                positions = range(max(start, sequence.num_scored - 1), min(end, sequence.score_end - 1))
                if positions:
                    scores.append((sequence, len(logit_indices), len(logit_indices) + len(positions)))
                    logit_indices.extend(offset + position for position in positions)
            if end >= sequence.num_tokens:
                sequence.decoding = True
                caught_up.append(sequence)
                if sequence.finish_reason is None:
                    del sequence.draft[end - sequence.num_tokens :]  # there was no room for more
                    draws.append((sequence, len(logit_indices), 1 + len(sequence.draft)))
                    logit_indices.extend(range(offset + sequence.num_tokens - 1, offset + end))
            offset += end

        start_time = time.perf_counter()
        logits = self.runner.forward(build_batch(chunks, logit_indices))
        self._num_steps += 1
        self.scheduler.commit(chunks)
        for sequence, first, last in scores:
            self._score(sequence, logits[first:last])
        if draws:
            self._draw(draws, logits)
        if self._speculator is not None and len(logit_indices) == offset:  # all tokens are last ones and guesses
            self._speculator.costs.observe(offset, time.perf_counter() - start_time)
        for sequence in caught_up:
            if sequence.state is SequenceState.RUNNING:  # else it has just been rejected
                self._report(sequence)

    def _score(self, sequence: Sequence, logits: Tensor) -> None:
        """Log-probabilities of the tokens that lack them next: of the prompt, or forced by a grammar."""
        first = sequence.num_scored
        last = first + logits.shape[0]
        boundary = min(max(first, len(sequence.prompt_ids)), last)
        if first < boundary and sequence.prompt_logprobs is not None:
            targets, top = sequence.tokens(first, boundary), sequence.sampling.prompt_logprobs or 0
            sequence.prompt_logprobs += self.sampler.score(logits[: boundary - first], targets, top)
        if boundary < last and sequence.logprobs is not None:
            targets, top = sequence.tokens(boundary, last), sequence.sampling.logprobs or 0
            sequence.logprobs += self.sampler.score(logits[boundary - first :], targets, top)
        sequence.num_scored = last

    def _draw(self, draws: list[tuple[Sequence, int, int]], logits: Tensor) -> None:
        """The next token of each sequence, from its row of the logits; with a draft, a token from each of its rows,
        for as long as they are those that were guessed."""
        constrained = [sequence for sequence, *_ in draws if sequence.matcher is not None]
        allowed = self._allowed(constrained) if constrained else {}
        draws = [draw for draw in draws if draw[0].matcher is None or draw[0] in allowed]
        if not draws:
            return
        rows = [
            SamplingRow(
                s.sampling,
                s.prompt_ids,
                [*s.output_ids, *s.draft[:guessed]] if guessed else s.output_ids,
                len(s.output_ids) + guessed,
                allowed.get(s),
            )
            for s, _, count in draws
            for guessed in range(count)
        ]
        if len(rows) < logits.shape[0]:
            indices = (row for _, first, count in draws for row in range(first, first + count))
            logits = logits[int32(indices).to(logits.device)]
        drawn = iter(self._sample(logits, rows))
        for sequence, _, count in draws:
            self._take(sequence, list(islice(drawn, count)))

    def _take(self, sequence: Sequence, drawn: list[SampledToken | LogitsError]) -> None:
        """Appends what was drawn after the known tokens and after each guess, as far as the guesses were right."""
        draft, sequence.draft = sequence.draft, []
        accepted = 0
        for token, guess in zip_longest(drawn, draft):
            if isinstance(token, LogitsError):
                return self._reject(sequence, "invalid", f"No token can be drawn: {token}")
            try:
                self._num_forced += sequence.append(token.token_id, token.logprobs)
            except GrammarError as error:
                return self._reject(sequence, "grammar", str(error))
            if token.token_id != guess:
                break
            accepted += 1
            if sequence.finish_reason is not None:
                break
        if self._speculator is not None:
            self._speculator.learn(sequence, len(draft), accepted)
        if accepted:
            self.scheduler.advance(sequence, sequence.num_computed + accepted)

    def _sample(self, logits: Tensor, rows: list[SamplingRow]) -> list[SampledToken | LogitsError]:
        """One token per row. A row that cannot give one does not hurt the others."""
        try:
            return [*self.sampler.sample(logits, rows)]
        except LogitsError as error:
            if len(rows) == 1:
                return [error]
            return [drawn for i in range(len(rows)) for drawn in self._sample(logits[i : i + 1], rows[i : i + 1])]

    def _allowed(self, sequences: list[Sequence]) -> dict[Sequence, Tensor]:
        """The tokens that each one's grammar lets follow, as a bitmask. Ends those that nothing can follow."""
        assert self._grammars is not None
        self._grammars.fill_masks([s.matcher for s in sequences if s.matcher is not None], self._masks)
        allowed: dict[Sequence, Tensor] = {}
        for sequence, mask in zip(sequences, self._masks, strict=False):
            assert sequence.matcher is not None
            try:
                if sequence.matcher.settle(mask, sequence.may_stop):
                    allowed[sequence] = mask
                else:
                    sequence.finish_reason = FinishReason.STOP
            except GrammarError as error:
                self._reject(sequence, "grammar", str(error))
        return allowed

    def _report(self, sequence: Sequence) -> None:
        """Puts what is new about a sequence into the step's results, and lets it go if that is its end."""
        finish_reason = sequence.finish_reason if sequence.is_complete else None
        if finish_reason is not None or sequence.num_ready > sequence.num_emitted:
            self._reports.append(self._output(sequence, finish_reason))
        if finish_reason is not None:
            if self._speculator is not None:
                self._speculator.finish(sequence)
            self._remove(sequence)

    def _output(self, sequence: Sequence, finish_reason: FinishReason | None) -> GenerationOutput:
        first, last = sequence.num_emitted, sequence.num_ready
        sequence.num_emitted = last
        self._num_generated += last - first
        prompt_logprobs = None
        if sequence.prompt_logprobs is not None and len(sequence.prompt_logprobs) == len(sequence.prompt_ids):
            prompt_logprobs, sequence.prompt_logprobs = tuple(sequence.prompt_logprobs), None
        return GenerationOutput(
            request_id=sequence.request.id,
            token_ids=tuple(sequence.output_ids[first:last]),
            logprobs=None if sequence.logprobs is None else tuple(sequence.logprobs[first:last]),
            prompt_logprobs=prompt_logprobs,
            finish_reason=finish_reason,
            stopped_by=None if finish_reason is None else sequence.stopped_by,
            cached_tokens=sequence.cached_tokens or 0,
            accepted_prediction_tokens=0 if sequence.guesser is None else sequence.guesser.accepted_prediction,
            rejected_prediction_tokens=0 if sequence.guesser is None else sequence.guesser.rejected_prediction,
        )

    def _reject(self, sequence: Sequence, kind: str, reason: str) -> None:
        self._reports.append(Rejected(request_id=sequence.request.id, kind=kind, reason=reason))
        self._remove(sequence)

    def _remove(self, sequence: Sequence) -> None:
        del self._sequences[sequence.request.id]
        compilation = self._compilations.pop(sequence.request.id, None)
        if compilation is not None:
            compilation.matcher.cancel()
        self.scheduler.remove(sequence)
