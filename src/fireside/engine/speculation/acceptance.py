"""How often guesses turn out right."""

from __future__ import annotations

from collections.abc import Sequence

_MEMORY = 0.95  # of what was seen before, per observation: some twenty of them count


class Rate:
    """A running share of successes that begins with an expectation worth a few observations."""

    __slots__ = ("_hits", "_trials")

    def __init__(self, expected: float, weight: float = 4.0) -> None:
        self._hits = expected * weight
        self._trials = weight

    @property
    def value(self) -> float:
        return self._hits / self._trials

    def observe(self, hit: bool) -> None:
        self._hits = self._hits * _MEMORY + hit
        self._trials = self._trials * _MEMORY + 1.0


class MatchRates:
    """How often the token after an earlier occurrence follows again, by the length of the match.

    `expected`: for matches of 1, 2, 3-4, 5-8, 9-16, ... tokens, the last for all longer ones.
    """

    __slots__ = ("_rates",)

    def __init__(self, expected: Sequence[float]) -> None:
        self._rates = [Rate(share) for share in expected]

    def observe(self, match_length: int, hit: bool) -> None:
        self._rate(match_length).observe(hit)

    def survivals(self, match_length: int, count: int) -> list[float]:
        """For each of `count` guesses after such a match: the chance that it and all before it are right.

        A guess that is right makes the match one token longer.
        """
        chances: list[float] = []
        chance = 1.0
        for index in range(count):
            chance *= self._rate(match_length + index).value
            chances.append(chance)
        return chances

    def _rate(self, match_length: int) -> Rate:
        return self._rates[min((match_length - 1).bit_length(), len(self._rates) - 1)]
