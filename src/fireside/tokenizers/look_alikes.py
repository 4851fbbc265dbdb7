"""Text from messages that looks like a control token, marked so that it stays text.

A chat template mixes its own control tokens with text that anyone may have written. Before rendering, a mark (one
character that occurs in neither the template nor the messages) is put into the messages' strings wherever a control
token begins, also one that is cut short by the string's end and could be completed by what the template writes next.
After rendering, a marked spelling is not a token (`Tokenizer.encode_marked`) and the marks vanish.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class LookAlikes:
    """Puts marks where `tokens` could begin. Made once for a set of tokens by `look_alikes`."""

    def __init__(self, tokens: frozenset[str]) -> None:
        ordered = sorted(tokens)
        beginnings = {token[:n] for token in ordered for n in range(1, len(token))}
        self._endings = tuple({token[n:] for token in ordered for n in range(1, len(token))})
        self._beginnings = tuple(beginnings)
        # a lookahead, so that the beginning of a token inside another is found too
        self._whole = re.compile(f"(?={'|'.join(map(re.escape, ordered)) or '(?!)'})")
        self._longest = max(map(len, ordered), default=0)

    def mark(self, text: str, mark: str) -> str:
        """`text` with `mark` before each beginning of a token, and in front if it begins with a token's ending."""
        positions = {match.start() for match in self._whole.finditer(text)}
        if text.endswith(self._beginnings):
            tail = text[-self._longest :]
            positions |= {len(text) - n for n in range(1, len(tail) + 1) if tail[-n:] in self._beginnings}
        if text.startswith(self._endings):
            positions.add(0)
        if not positions:
            return text
        cuts = sorted({0, *positions, len(text)})
        return "".join((mark if a in positions else "") + text[a:b] for a, b in pairwise(cuts))


@lru_cache(maxsize=32)
def look_alikes(tokens: frozenset[str]) -> LookAlikes:
    return LookAlikes(tokens)


def unused_characters(texts: Iterable[str], count: int) -> list[str]:
    """`count` private-use characters that occur in none of `texts`, neither raw nor as a JSON escape."""
    present = "".join(texts)
    free: list[str] = []
    for character in (chr(code) for block in PRIVATE_USE for code in block):
        if character not in present and escaped(character) not in present:
            free.append(character)
            if len(free) == count:
                break
    return free


def escaped(character: str) -> str:
    """The character as `json.dumps` with `ensure_ascii` writes it, which some templates do."""
    return json.dumps(character)[1:-1]
