"""Guesses from text: the request's own, and what others were answered lately."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from fireside.engine.speculation.acceptance import MatchRates
from fireside.engine.speculation.suffix_automaton import Cursor, SuffixAutomaton

if TYPE_CHECKING:
    from fireside.engine.sequence import Sequence

# A request's text beyond which its automaton starts anew from the last half: 4 MB at about 125 bytes a token.
MAX_TEXT = 32_768
# Tokens of answers in each of the two generations of `RecentOutputs`: 4 MB for both.
MAX_RECENT = 16_384
_SEPARATOR = -1
# What to expect before anything was seen, by length of the match. Measured on chat answers, where few matches mean
# anything: text that does repeat itself soon says so.
_OWN = (0.15, 0.3, 0.45, 0.6, 0.75, 0.85)
_RECENT = (0.1, 0.2, 0.35, 0.5, 0.7, 0.85)


class Source(StrEnum):
    """Where a guess came from."""

    LOOKUP = "lookup"  # the request's own text
    RECENT = "recent"  # recent answers
    DRAFT_MODEL = "draft_model"


@dataclass(slots=True)
class Guess:
    """`tokens` that may follow a sequence; `chances[i]`: that token i and all before it do."""

    source: Source
    tokens: list[int]
    chances: list[float]


class RecentOutputs:
    """The latest answers, as two automata: when the young one is full it becomes the old one, and the old one falls
    out. So memory is bounded, and the last `MAX_RECENT` tokens at least are known."""

    def __init__(self, max_tokens: int = MAX_RECENT) -> None:
        self.max_tokens = max_tokens
        self.young = SuffixAutomaton()
        self.old = SuffixAutomaton()
        self._waiting: list[list[int]] = []  # answers not indexed yet, the next one last, reversed
        self._num_waiting = 0

    def add(self, tokens: list[int]) -> None:
        """An answer that has ended. It is indexed by and by; what would fall out again at once is not kept."""
        tokens = tokens[-self.max_tokens :]
        if tokens and self._num_waiting + len(tokens) <= self.max_tokens:
            self._waiting.insert(0, [_SEPARATOR, *reversed(tokens)])
            self._num_waiting += len(tokens) + 1

    def index(self, budget: int) -> int:
        """Takes in at most `budget` tokens; returns how many."""
        done = 0
        while self._waiting and done < budget:
            answer = self._waiting[-1]
            if len(self.young) >= self.max_tokens:
                self.young, self.old = SuffixAutomaton(), self.young
            for _ in range(min(budget - done, len(answer))):
                self.young.append(answer.pop())
                done += 1
            if not answer:
                self._waiting.pop()
        self._num_waiting -= done
        return done


class Lookup:
    """One request's guesses from text, and how often they were right.

    Whether the token that a match promised did follow is seen for every token of the answer, guessed or not: so the
    rates are learned at no cost, and guessing needs no trial to start or to end.
    """

    def __init__(self, recent: RecentOutputs | None = None) -> None:
        self._own = SuffixAutomaton()
        self._own_rates = MatchRates(_OWN)
        self._recent = recent
        self._recent_rates = MatchRates(_RECENT)
        self._cursors: list[Cursor] = []
        self._indexed = 0  # tokens of the sequence

    def index(self, sequence: Sequence, budget: int) -> int:
        """Takes in at most `budget` more tokens of the sequence; returns how many.

        Bounded, because a prompt of 32,768 tokens takes 35 ms, in which nobody would get a token.
        """
        end = sequence.num_tokens
        if len(self._own) >= MAX_TEXT or (self._indexed == 0 and end > MAX_TEXT):
            self._own, self._indexed = SuffixAutomaton(), end - MAX_TEXT // 2
        start, end = self._indexed, min(end, self._indexed + budget)
        boundary = min(max(start, len(sequence.prompt_ids)), end)
        self._own.extend(sequence.tokens(start, boundary))
        for token in sequence.tokens(boundary, end):
            self._learn(token)
        self._indexed = end
        return end - start

    def guess(self, sequence: Sequence, limit: int) -> Guess | None:
        """At most `limit` tokens that may follow; None if nothing like the tail is known or indexing is behind."""
        if limit <= 0 or self._indexed < sequence.num_tokens:
            return None
        own = self._own
        best = _guess(Source.LOOKUP, own, self._own_rates, limit)
        cursor = self._best_cursor()
        if cursor is not None:
            other = _guess(Source.RECENT, cursor, self._recent_rates, limit)
            if other is not None and (best is None or sum(other.chances) > sum(best.chances)):
                best = other
        if best is not None:
            for index, token in enumerate(best.tokens):
                if token in sequence.stop_token_ids:
                    del best.tokens[index + 1 :], best.chances[index + 1 :]  # nothing can follow
                    break
        return best

    def _learn(self, token: int) -> None:
        """Takes in a token of the answer."""
        own = self._own
        if own.match_length:
            self._own_rates.observe(own.match_length, own.text[own.match_end] == token)
        own.append(token)
        if self._recent is None:
            return
        cursor = self._best_cursor()
        if cursor is not None and cursor.match_end < len(cursor.automaton):
            self._recent_rates.observe(cursor.match_length, cursor.automaton.text[cursor.match_end] == token)
        if not self._cursors or self._cursors[0].automaton is not self._recent.young:
            known = {id(cursor.automaton): cursor for cursor in self._cursors}
            automata = (self._recent.young, self._recent.old)
            self._cursors = [known.get(id(automaton)) or Cursor(automaton) for automaton in automata]
        for cursor in self._cursors:
            cursor.append(token)

    def _best_cursor(self) -> Cursor | None:
        """The longer match, of the younger answers where both are as long."""
        best = max(self._cursors, key=lambda cursor: cursor.match_length, default=None)
        return best if best is not None and best.match_length else None


def _guess(source: Source, match: SuffixAutomaton | Cursor, rates: MatchRates, limit: int) -> Guess | None:
    if not match.match_length:
        return None
    tokens = match.continuation(limit)
    return Guess(source, tokens, rates.survivals(match.match_length, len(tokens))) if tokens else None
