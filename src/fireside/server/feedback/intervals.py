"""How sure a share is."""

from __future__ import annotations

from math import sqrt

from fireside.server.feedback.schemas import Interval

_Z = 1.959963984540054  # the normal distribution's, for 95 %


def wilson(successes: float, count: int) -> Interval | None:
    """The 95 % score interval of E. B. Wilson (1927), "Probable inference, the law of succession, and statistical
    inference", JASA 22; which L. D. Brown, T. T. Cai and A. DasGupta (2001), "Interval estimation for a binomial
    proportion", Statistical Science 16, recommend for few observations. None without any.

    successes: half ones, as ties are, make it wider than it had to be.
    """
    if count == 0:
        return None
    share = successes / count
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z * sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    return Interval(rate=share, low=max(0.0, centre - half), high=min(1.0, centre + half))
