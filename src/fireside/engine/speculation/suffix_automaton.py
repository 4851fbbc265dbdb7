"""`SuffixAutomaton`: where the longest tail of a text occurred before, kept up to date token by token."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

_NONE = -(1 << 31)  # no transition; not a token, nor a separator


class SuffixAutomaton:
    """All substrings of a growing text, in at most two states per token.

    Blumer et al., "The smallest automaton recognizing the subwords of a text" (1985); used to guess tokens by Hu et
    al., "SAM Decoding" (2024). A state stands for the substrings that end at the same places; its suffix link leads to
    the longest of their suffixes that also ends elsewhere. So the link of the whole text's state is what we want: the
    longest tail that occurred before. Appending costs amortised O(1).

    Tokens may be any 32-bit integers but the smallest: negative ones serve as separators, which no real token equals.

    match_length, match_end: the longest tail that occurred before, and the position after such an occurrence; 0 and 0
    if there is none. Of several occurrences it is the last at which this tail was the longest one; exact recency
    would have to touch every suffix link on the way, which is not O(1).
    """

    # Most states have one transition. That one is kept in arrays, and only further ones in a dictionary: about 125
    # bytes per token of ordinary text, of which a dictionary per state would take several times as many.
    __slots__ = ("_end", "_last", "_length", "_link", "_more", "_target", "_token", "match_end", "match_length", "text")

    def __init__(self) -> None:
        self.text = array("i")
        self.match_length = 0
        self.match_end = 0
        self._length = array("i", [0])  # of the longest substring of each state; state 0 is the empty one
        self._link = array("i", [-1])
        self._end = array("i", [0])  # the position after one occurrence
        self._token = array("i", [_NONE])
        self._target = array("i", [0])
        self._more: dict[int, dict[int, int]] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self.text)

    def extend(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        lengths, links, ends, tokens, targets = self._length, self._link, self._end, self._token, self._target
        more = self._more
        self.text.append(token)
        position = len(self.text)
        state = len(lengths)
        lengths.append(position)
        links.append(0)
        ends.append(position)
        tokens.append(_NONE)
        targets.append(0)
        at = self._last
        self._last = state
        target = 0
        while at >= 0:
            first = tokens[at]
            if first == token:
                target = targets[at]
                break
            if first == _NONE:
                tokens[at] = token
                targets[at] = state
            else:
                others = more.get(at)
                if others is None:
                    more[at] = {token: state}
                elif token in others:
                    target = others[token]
                    break
                else:
                    others[token] = state
            at = links[at]
        if at < 0:
            self.match_length = self.match_end = 0
            return
        if lengths[at] + 1 != lengths[target]:
            target = self._split(target, at, token)
        links[state] = target
        self.match_length = lengths[target]
        self.match_end = ends[target]
        ends[target] = position

    def _split(self, state: int, at: int, token: int) -> int:
        """Parts the shorter substrings of `state`, which from now on end in more places, from the longer ones."""
        clone = len(self._length)
        self._length.append(self._length[at] + 1)
        self._link.append(self._link[state])
        self._end.append(self._end[state])
        self._token.append(self._token[state])
        self._target.append(self._target[state])
        if state in self._more:
            self._more[clone] = self._more[state].copy()
        while at >= 0 and self.follow(at, token) == state:
            if self._token[at] == token:
                self._target[at] = clone
            else:
                self._more[at][token] = clone
            at = self._link[at]
        self._link[state] = clone
        return clone

    def follow(self, state: int, token: int) -> int:
        """The state after `token`; 0 if the text has no such substring."""
        if self._token[state] == token:
            return self._target[state]
        others = self._more.get(state)
        return 0 if others is None else others.get(token, 0)

    def continuation(self, count: int, start: int | None = None) -> list[int]:
        """At most `count` tokens from `start` (None: `match_end`) on, up to a separator. Where the text ends it goes on
        with itself from `start`, as a text of that period would."""
        start = self.match_end if start is None else start
        end = len(self.text)
        found: list[int] = []
        if start >= end:
            return found
        for index in range(count):
            token = self.text[start + index % (end - start)]
            if token < 0:
                break
            found.append(token)
        return found


class Cursor:
    """Where the tail of one text occurs in another one's automaton, which may grow meanwhile.

    match_length, match_end: as in `SuffixAutomaton`, for the tail of the tokens given to `append`.
    """

    __slots__ = ("_state", "automaton", "match_length")

    def __init__(self, automaton: SuffixAutomaton) -> None:
        self.automaton = automaton
        self.match_length = 0
        self._state = 0

    @property
    def match_end(self) -> int:
        return self.automaton._end[self._state]

    def continuation(self, count: int) -> list[int]:
        return self.automaton.continuation(count, self.match_end)

    def append(self, token: int) -> None:
        automaton = self.automaton
        state, length = self._state, self.match_length
        while not (target := automaton.follow(state, token)):
            if state == 0:
                self._state = self.match_length = 0
                return
            state = automaton._link[state]
            # The automaton may have split the state since: what we stand for can be shorter than the link's longest.
            length = min(length, automaton._length[state])
        self._state, self.match_length = target, length + 1
