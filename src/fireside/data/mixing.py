"""How much of each source is trained on."""

from __future__ import annotations

from collections.abc import Sequence


def shares(weights: Sequence[float | None], sizes: Sequence[float]) -> list[float]:
    """What part of the whole each source is, relative to the others.

    Weights of all sources stand in proportion; without any, sizes do. Weights of some are parts of 1, and the sources
    without divide what is left by their sizes. Raises `ValueError` if nothing is left.
    """
    given = sum(weight for weight in weights if weight is not None)
    unweighted = sum(size for weight, size in zip(weights, sizes, strict=True) if weight is None)
    if None in weights and given >= 1:
        raise ValueError(
            f"the weights of some sources add up to {given:g}: where others have none, a weight is a part of 1, and "
            "what is left goes to those by size; keep the sum below 1, or give every source a weight"
        )
    return [
        (1 - given) * size / unweighted if weight is None else weight
        for weight, size in zip(weights, sizes, strict=True)
    ]
