"""Guessing the next tokens from the request's own text, so that one forward pass can check several.

A pass over a few tokens reads the same weights as a pass over one, and on a CPU reading weights is what takes the
time. Where an answer repeats its prompt or itself (quotes, code edits, tables), the text itself is the best guess:
prompt lookup, as in https://github.com/apoorvumang/prompt-lookup-decoding. A wrong guess costs a little time and
never a token: the engine draws at every guessed place just as it would have, and keeps guesses that were drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Tokens
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fireside.engine.sequence import Sequence

LENGTHS = (4, 3, 2)  # of the tail that is looked up, the longest first: the longer the match, the better the guess
_PATIENCE = 4  # failures in a row after which guessing pauses, longer each time
_LONGEST_PAUSE = 64  # tokens
# A step's tokens beyond which computing, not reading weights, takes the time: guesses would then slow others down.
_STEP_TOKENS = 16


def make_drafts(running: Iterable[Sequence], max_draft: int) -> None:
    """Sets the draft of every sequence that decodes. None under a grammar, which has forced tokens of its own."""
    decoding = [sequence for sequence in running if sequence.decoding]
    if not decoding:
        return
    share = _STEP_TOKENS // len(decoding) - 1
    for sequence in decoding:
        room = min(share, sequence.max_length - sequence.num_tokens - 1)
        if room <= 0 or sequence.matcher is not None or sequence.finish_reason is not None:
            sequence.draft = []
            continue
        if sequence.lookup is None:
            sequence.lookup = PromptLookup(max_draft)
        sequence.draft = sequence.lookup.draft(sequence.prompt_ids, sequence.output_ids, room)


class PromptLookup:
    """Drafts for one request. Remembers where each short run of tokens was last followed by something."""

    def __init__(self, max_draft: int) -> None:
        self.max_draft = max_draft
        self._length = max(1, max_draft // 2)  # of the next draft: grows with success, shrinks with failure
        self._after: dict[tuple[int, ...], int] = {}  # a run of tokens -> the position after its last occurrence
        self._indexed = 0
        self._failures = 0
        self._silent_until = 0

    def draft(self, prompt_ids: Tokens[int], output_ids: Tokens[int], room: int) -> list[int]:
        """At most `room` tokens that may follow prompt and output; none if nothing like the tail occurred before."""
        limit = min(room, self._length, self.max_draft)
        end = len(prompt_ids) + len(output_ids)
        if limit <= 0 or end < self._silent_until:
            return []
        self._index(prompt_ids, output_ids, end)
        tail = _slice(prompt_ids, output_ids, max(0, end - LENGTHS[0]), end)
        for length in LENGTHS:
            start = self._after.get(tuple(tail[-length:])) if length <= len(tail) else None
            if start is None:
                continue
            draft = _slice(prompt_ids, output_ids, start, min(start + limit, end))
            # A text that repeats with a short period ends before the draft is long enough: it goes on with itself.
            while len(draft) < limit:
                draft.append(draft[len(draft) - (end - start)])
            return draft
        return []

    def learn(self, num_drafted: int, num_accepted: int, position: int) -> None:
        """What became of the last draft; `position` is the number of tokens of the text now."""
        if num_accepted == num_drafted:
            self._length = min(self.max_draft, self._length * 2)
        elif num_accepted < num_drafted // 2:
            self._length = max(1, self._length // 2)
        if num_accepted:
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= _PATIENCE:
            self._silent_until = position + min(_LONGEST_PAUSE, 2 ** (self._failures - _PATIENCE + 2))

    def _index(self, prompt_ids: Tokens[int], output_ids: Tokens[int], end: int) -> None:
        """Takes in all runs that end before the last token: the tail itself must not be what it finds."""
        first = max(self._indexed, 1)
        if first >= end:
            return
        start = max(0, first - LENGTHS[0])
        tokens = _slice(prompt_ids, output_ids, start, end - 1)
        for position in range(first, end):
            at = position - start
            for length in LENGTHS:
                if at >= length:
                    self._after[tuple(tokens[at - length : at])] = position
        self._indexed = end


def _slice(prompt_ids: Tokens[int], output_ids: Tokens[int], start: int, end: int) -> list[int]:
    """Tokens [start, end) of prompt and output laid end to end."""
    boundary = len(prompt_ids)
    return [*prompt_ids[start:end], *output_ids[max(0, start - boundary) : max(0, end - boundary)]]
