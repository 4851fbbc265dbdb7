"""The randomness of sampling: one number per (seed, index of the token), from a hash instead of a stream.

A stream of random numbers has a position, and that position is lost when a request is preempted, or shifts when
another request draws first. A hash of (seed, index) has none: token i of a request sees the same number however
and wherever it is computed.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, made odd: splitmix64's step


def mix64(value: int) -> int:
    """The finaliser of splitmix64: a bijection of 64-bit words in which every input bit reaches every output bit.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1), a multiple of 2^-52, that depends on `seed` and `index` (both any integer) alone.

    It is output `index` of splitmix64 started at the hash of the seed. The seed is hashed first because
    splitmix64's own neighbouring seeds can be the same stream, shifted. 52 bits, not 53, so that
    `uniform * total` stays below `total` after rounding.
    """
    state = mix64((seed + _GOLDEN) & _MASK)
    return (mix64((state + (index + 1) * _GOLDEN) & _MASK) >> 12) * 2.0**-52
