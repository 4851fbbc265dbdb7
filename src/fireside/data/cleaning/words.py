"""Words and runs of words as 64-bit hashes, for a whole text at once."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

CHUNK = 1 << 18  # characters at once: memory is some 40 bytes for each
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_RUN = np.uint64(0xC2B2AE3D27D4EB4F)


@lru_cache(maxsize=1)  # several blocks look at the same text in turn
def word_hashes(text: str) -> Hashes:
    """One hash for each word, in order, case aside. uint64 [words].

    A word is a run of characters that are neither blanks nor punctuation; in scripts without blanks (Chinese,
    Japanese, Thai, ...) it is a character. The same text has the same hashes on every machine.
    """
    codes = np.frombuffer(text.lower().encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = _kinds()[np.minimum(codes, _LAST)]
    parts = []
    start = 0
    while start < len(codes):
        stop = min(start + CHUNK, len(codes))
        if stop < len(codes):  # back to the end of a word
            blanks = np.flatnonzero(kinds[start:stop] == 0)
            stop = start + int(blanks[-1]) + 1 if len(blanks) else stop
        parts.append(_hash_chunk(codes[start:stop], kinds[start:stop]))
        start = stop
    hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)
    hashes.flags.writeable = False
    return hashes


def run_hashes(words: Hashes, length: int) -> Hashes:
    """One hash for each run of `length` words. uint64 [max(words - length + 1, 0)]."""
    count = max(len(words) - length + 1, 0)
    result = np.zeros(count, np.uint64)
    for offset in range(length):
        result *= _RUN
        result += words[offset : offset + count]
    return mixed(result)


def mixed(values: Hashes) -> Hashes:
    """The finaliser of MurmurHash3: every bit of the result depends on every bit of the value."""
    values = values ^ (values >> np.uint64(33))
    values = values * np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(33)
    return values


def _hash_chunk(codes: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> Hashes:
    """A word from s to e is hashed as the sum of code * base**(i - s), taken from sums over the whole chunk."""
    inside = kinds > 0
    first, last = inside.copy(), inside.copy()
    joined = (kinds[1:] == 1) & (kinds[:-1] == 1)
    first[1:] &= ~joined
    last[:-1] &= ~joined
    starts, ends = np.flatnonzero(first), np.flatnonzero(last) + 1
    powers, inverses = _powers()
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * powers[: len(codes)], out=sums[1:])
    return mixed((sums[ends] - sums[starts]) * inverses[starts])


@cache
def _powers() -> tuple[Hashes, Hashes]:
    def powers(base: int) -> Hashes:
        values = np.full(CHUNK, base, np.uint64)
        values[0] = 1
        return np.cumprod(values)

    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64))


_LAST = 0xFFFF
_WHOLE = ((0x0E00, 0x0E80), (0x1000, 0x10A0), (0x2E80, 0x2FE0), (0x3040, 0x3100), (0x3400, 0xA000), (0xF900, 0xFB00))


@cache
def _kinds() -> NDArray[np.uint8]:
    """Of each character up to U+FFFF: 0 between words, 1 in a word, 2 a word of its own. The last stands for all above:
    CJK extensions and emoji."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(_LAST + 1)), np.uint8, _LAST + 1)
    kinds[[ord("'"), ord("_"), 0x2019]] = 1
    kinds[0x0300:0x0370] = kinds[0x0900:0x0E00] = 1  # combining marks, and Indic vowel signs
    for start, stop in _WHOLE:
        kinds[start:stop] = 2
    kinds[_LAST] = 2
    return kinds
