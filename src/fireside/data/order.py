"""Random orders that need no memory: a permutation of n numbers as a function of a key."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fireside.data.cleaning.words import mixed

_ROUNDS = 4


def order_key(*parts: int | str) -> int:
    """64 bits of a hash over `parts`, the same on every machine."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def shuffled(indices: NDArray[np.int64], count: int, key: int) -> NDArray[np.int64]:
    """What stands at `indices` of a random order of 0 to `count` - 1 that `key` decides.

    A Feistel network over the next even number of bits, walked until it lands below `count` (Black and Rogaway 2002).
    """
    half = max((max(count - 1, 1).bit_length() + 1) // 2, 1)
    mask = np.uint64((1 << half) - 1)
    keys = [np.uint64(order_key(key, number)) for number in range(_ROUNDS)]
    values = indices.astype(np.uint64)
    outside = np.ones(len(values), bool)
    while outside.any():
        left, right = values[outside] >> np.uint64(half), values[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (mixed(right ^ round_key) & mask)
        values[outside] = (left << np.uint64(half)) | right
        outside = values >= np.uint64(count)
    return values.astype(np.int64)
