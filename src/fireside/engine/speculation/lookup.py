"""Guesses from text: the request's own, its client's prediction, and what others were answered lately."""

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
# What to expect before anything was seen, by length of the match. Those of the request's own text were measured over
# answers of SmolLM2-135M and Qwen2.5-Coder-0.5B to edits, summaries and plain questions; results hardly depend on them.
_OWN = (0.2, 0.5, 0.65, 0.8, 0.88, 0.95)
_RECENT = (0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
_PREDICTION = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # whoever sends one knows what to expect


class Source(StrEnum):
    """Where a guess came from."""

    LOOKUP = "lookup"  # the request's own text
    PREDICTION = "prediction"  # what the client says the answer will look like
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

    def __init__(self, sequence: Sequence, recent: RecentOutputs | None = None) -> None:
        self._own = SuffixAutomaton()
        self._origin = 0  # where the automaton's text begins in the whole: prompt, prediction, answer
        self._indexed = 0  # tokens of the whole
        self._learned = 0  # tokens of the answer that rates and cursors have seen, which they do only once
        predicted = sequence.request.predicted_ids
        # The same separator stands before the prediction and before the answer: so the answer's very start matches the
        # prediction's, and later matches are of the answer itself.
        self._prediction = (_SEPARATOR, *predicted, _SEPARATOR) if predicted else ()
        self._predicted = range(len(sequence.prompt_ids) + 1, len(sequence.prompt_ids) + len(self._prediction))
        self._recent = recent
        self._cursors: list[Cursor] = []
        self._rates = {
            Source.LOOKUP: MatchRates(_OWN),
            Source.PREDICTION: MatchRates(_PREDICTION),
            Source.RECENT: MatchRates(_RECENT),
        }

    def index(self, sequence: Sequence, budget: int) -> int:
        """Takes in at most `budget` more tokens; returns how many.

        Bounded, because a prompt of 32,768 tokens takes 35 ms, in which nobody would get a token.
        """
        end = sequence.num_tokens + len(self._prediction)
        if end - self._origin > MAX_TEXT:
            self._own, self._origin = SuffixAutomaton(), end - MAX_TEXT // 2
            self._indexed = self._origin
        start, end = self._indexed, min(end, self._indexed + budget)
        prompt, prediction = len(sequence.prompt_ids), len(self._prediction)
        if start < prompt + prediction:
            self._own.extend(sequence.prompt_ids[start:end])
            self._own.extend(self._prediction[max(0, start - prompt) : max(0, end - prompt)])
        answered = prompt + prediction
        first, last = max(0, start - answered), max(0, end - answered)
        self._own.extend(sequence.output_ids[first : min(last, self._learned)])
        for token in sequence.output_ids[max(first, self._learned) : last]:
            self._learn(token)
        self._learned = max(self._learned, last)
        self._indexed = end
        return end - start

    def guess(self, sequence: Sequence, limit: int) -> Guess | None:
        """At most `limit` tokens that may follow; None if nothing like the tail is known or indexing is behind."""
        if limit <= 0 or self._indexed < sequence.num_tokens + len(self._prediction):
            return None
        best = self._guess(self._own_source, self._own, limit)
        cursor = self._best_cursor()
        if cursor is not None:
            other = self._guess(Source.RECENT, cursor, limit)
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
            self._rates[self._own_source].observe(own.match_length, own.text[own.match_end] == token)
        own.append(token)
        if self._recent is None:
            return
        cursor = self._best_cursor()
        if cursor is not None and cursor.match_end < len(cursor.automaton):
            hit = cursor.automaton.text[cursor.match_end] == token
            self._rates[Source.RECENT].observe(cursor.match_length, hit)
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

    @property
    def _own_source(self) -> Source:
        """Where the automaton's match lies."""
        return Source.PREDICTION if self._origin + self._own.match_end in self._predicted else Source.LOOKUP

    def _guess(self, source: Source, match: SuffixAutomaton | Cursor, limit: int) -> Guess | None:
        if not match.match_length:
            return None
        tokens = match.continuation(limit)
        chances = self._rates[source].survivals(match.match_length, len(tokens))
        return Guess(source, tokens, chances) if tokens else None
