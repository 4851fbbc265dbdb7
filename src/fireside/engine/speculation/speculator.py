"""`Speculator`: guesses the next tokens, so that one forward pass can check several.

A pass over a few tokens reads the same weights as a pass over one, and on a CPU reading weights is what takes the
time. A wrong guess costs a little time and never a token: the engine draws at every guessed place just as it would
have, and keeps guesses that were drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fireside.engine.speculation.costs import PassCosts
from fireside.engine.speculation.draft_model import DraftModel, DraftRate
from fireside.engine.speculation.lookup import Guess, Lookup, RecentOutputs, Source

if TYPE_CHECKING:
    from fireside.engine.blocks import BlockManager
    from fireside.engine.sequence import Sequence

# Tokens whose text is taken into automata in one step, of all requests together: 1 to 2 ms.
_INDEX_BUDGET = 1024
# Guesses must promise so much more than none, or their own trouble (choosing, drawing, laying out) would eat it up.
_MARGIN = 1.02
# Steps over which the time is spread that the draft model takes to compute a text it does not know yet.
_HORIZON = 8


class Guesser:
    """What is remembered about guessing for one sequence."""

    __slots__ = ("accepted_prediction", "draft_rate", "lookup", "rejected_prediction", "source")

    def __init__(self, sequence: Sequence, recent: RecentOutputs | None) -> None:
        self.lookup = Lookup(sequence, recent)
        self.draft_rate = DraftRate()
        self.source = Source.LOOKUP  # of the last draft
        self.accepted_prediction = 0  # guesses from the client's prediction that were right
        self.rejected_prediction = 0


class Speculator:
    """Drafts for all sequences: as many guesses as make the most tokens per second of the next step.

    max_draft: most tokens guessed for one request in one step. costs: seconds of the model's pass over n tokens, in
    the unit of the draft model's. recent_outputs: guess from other answers too. draft_model: guesses where text has
    none as good.
    drafted, accepted: guesses that were checked, and those that were right, by source.
    """

    def __init__(
        self,
        max_draft: int,
        *,
        costs: PassCosts,
        recent_outputs: bool = True,
        draft_model: DraftModel | None = None,
    ) -> None:
        self.max_draft = max_draft
        self.recent = RecentOutputs() if recent_outputs else None
        self.draft_model = draft_model
        self.costs = costs
        self.drafted: dict[str, int] = dict.fromkeys(Source, 0)
        self.accepted: dict[str, int] = dict.fromkeys(Source, 0)

    def propose(self, running: list[Sequence], blocks: BlockManager, vocab_size: int) -> None:
        """Sets the draft of every sequence that decodes. None under a grammar, which has forced tokens of its own.

        Guesses get blocks only where each running sequence could still have one more.
        """
        budget = _INDEX_BUDGET
        num_decoding = 0
        guesses: dict[Sequence, Guess | None] = {}
        for sequence in running:
            num_decoding += sequence.decoding
            sequence.draft = []
            if sequence.matcher is not None or sequence.finish_reason is not None:
                continue
            if sequence.guesser is None:
                sequence.guesser = Guesser(sequence, self.recent)
            if budget:
                budget -= sequence.guesser.lookup.index(sequence, budget)
            if sequence.decoding and (limit := self._limit(sequence)) > 0:
                guesses[sequence] = sequence.guesser.lookup.guess(sequence, limit)
        if self.recent is not None:
            self.recent.index(budget)
        if not guesses:
            return
        if self.draft_model is not None:
            self._ask_draft_model(guesses, num_decoding, blocks, len(running), vocab_size)
        chosen = self._choose([guess for guess in guesses.values() if guess is not None], num_decoding)
        for sequence, guess in guesses.items():
            assert sequence.guesser is not None
            if guess is not None:
                sequence.draft = guess.tokens[: chosen[id(guess)]]
                sequence.guesser.source = guess.source

    def learn(self, sequence: Sequence, num_drafted: int, num_accepted: int) -> None:
        """What became of a draft that was checked; the sequence has its new tokens."""
        # The draft model computed guesses, of which the first wrong one and all after it are not the sequence's tokens.
        sequence.num_draft_computed = min(sequence.num_draft_computed, sequence.num_tokens - 1)
        guesser = sequence.guesser
        if guesser is None or not num_drafted:
            return
        self.drafted[guesser.source] += num_drafted
        self.accepted[guesser.source] += num_accepted
        if guesser.source is Source.DRAFT_MODEL:
            guesser.draft_rate.learn(num_drafted, num_accepted)
        elif guesser.source is Source.PREDICTION:
            guesser.accepted_prediction += num_accepted
            guesser.rejected_prediction += num_drafted - num_accepted

    def finish(self, sequence: Sequence) -> None:
        """The sequence has ended; its answer may help others."""
        if self.recent is not None and sequence.guesser is not None:
            self.recent.add(sequence.output_ids)

    def _limit(self, sequence: Sequence) -> int:
        """Most guesses that the sequence has any use for: the last token is always drawn."""
        return min(self.max_draft, sequence.max_length - sequence.num_tokens - 1)

    def _choose(self, guesses: list[Guess], num_decoding: int) -> Counter[int]:
        """How many tokens of each guess (by its `id`) are worth checking.

        The likeliest first, whoever they are for, up to the number at which the step's expected tokens per second are
        the most. A pass costs the more the more tokens it has, so crowds guess less.
        """
        candidates = sorted(
            ((-chance, order, id(guess)) for order, guess in enumerate(guesses) for chance in guess.chances)
        )
        expected = float(num_decoding)
        best = _MARGIN * expected / self.costs.of(num_decoding)
        count = 0
        for number, (chance, *_) in enumerate(candidates, start=1):
            expected -= chance
            rate = expected / self.costs.of(num_decoding + number)
            if rate > best:
                best, count = rate, number
        return Counter(guess for *_, guess in candidates[:count])

    def _ask_draft_model(
        self,
        guesses: dict[Sequence, Guess | None],
        num_decoding: int,
        blocks: BlockManager,
        num_running: int,
        vocab_size: int,
    ) -> None:
        """Replaces the guesses that promise less than the draft model's would, after what those cost."""
        assert self.draft_model is not None
        seconds = self.draft_model.costs.of(num_decoding)
        wanted: list[tuple[Sequence, int]] = []
        trials: set[Sequence] = set()
        for sequence, guess in guesses.items():
            assert sequence.guesser is not None
            limit, rate = self._limit(sequence), sequence.guesser.draft_rate
            gain_from_text, _ = self._gain(guess.chances if guess is not None else [], num_decoding)
            catch_up = self.draft_model.catch_up_seconds(sequence) / _HORIZON
            chances = [rate.value**depth for depth in range(1, limit + 1)]
            gain, count = self._gain(chances, num_decoding, seconds, catch_up)
            if count == 0 and gain_from_text == 1.0 and self._gain([1.0] * limit, num_decoding, seconds, catch_up)[1]:
                if rate.is_time_to_try(sequence.num_tokens):
                    count = 1
                    trials.add(sequence)
            elif gain <= gain_from_text:
                count = 0
            if count and not blocks.extend(sequence, sequence.num_tokens + count, reserve=num_running):
                count = len(sequence.block_table) * blocks.block_size - sequence.num_tokens
            if count > 0:
                wanted.append((sequence, count))
        self.draft_model.draft(wanted, vocab_size)
        for sequence, _ in wanted:
            if sequence.draft:
                assert sequence.guesser is not None
                # A trial is checked whatever it promises.
                value = 1.0 if sequence in trials else sequence.guesser.draft_rate.value
                chances = [value**depth for depth in range(1, len(sequence.draft) + 1)]
                guesses[sequence] = Guess(Source.DRAFT_MODEL, sequence.draft, chances)

    def _gain(
        self, chances: Iterable[float], num_decoding: int, draft_seconds: float = 0.0, catch_up: float = 0.0
    ) -> tuple[float, int]:
        """The most tokens per second that guesses of these chances give, as a multiple of none, if everybody had such
        guesses, each after so many seconds of drafting, all after so many of catching up; and with how many of them."""
        best, count = 1.0, 0
        unguessed = self.costs.of(num_decoding)
        expected = 1.0
        for number, chance in enumerate(chances, start=1):
            expected += chance
            seconds = self.costs.of(num_decoding * (1 + number)) + number * draft_seconds + num_decoding * catch_up
            if expected * unguessed / seconds > max(best, _MARGIN):
                best, count = expected * unguessed / seconds, number
        return best, count
