"""How often somebody may try, as token buckets in bounded memory."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from fireside.server.errors import ApiError

_BUCKETS = 10_000


class RateLimit:
    """`burst` tries at once for every key, and one more each `seconds`."""

    def __init__(
        self,
        burst: int,
        seconds: float,
        *,
        buckets: int = _BUCKETS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._seconds = seconds
        self._buckets = buckets
        self._clock = clock
        # When a key will have all its tries again, the key that tried last at the end. One not in here has them all.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str) -> None:
        """Uses up one try. Raises `ApiError` 429, with the seconds to wait, if there is none."""
        now = self._clock()
        full_at = max(self._full_at.get(key, now), now) + self._seconds
        wait = full_at - now - self._burst * self._seconds
        if wait > 0:
            raise ApiError(
                429,
                "too many attempts; try again later",
                type="rate_limit_error",
                code="too_many_attempts",
                headers={"Retry-After": str(math.ceil(wait))},
            )
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        self._forget(now)

    def give_back(self, key: str) -> None:
        """Of a try that was no guess: it succeeded."""
        if key in self._full_at:
            self._full_at[key] -= self._seconds

    def _forget(self, now: float) -> None:
        """Keys with all their tries need no place; if that is not enough, who tried longest ago loses theirs."""
        if len(self._full_at) > self._buckets:
            for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
                del self._full_at[key]
            while len(self._full_at) > self._buckets:
                self._full_at.popitem(last=False)


class Limits:
    """Those of one server.

    An account takes more tries than an address has, and regains them as fast: nobody locks another one out from a
    single address.
    """

    def __init__(self) -> None:
        self.sign_in_by_address = RateLimit(burst=20, seconds=30)
        self.sign_in_by_email = RateLimit(burst=50, seconds=30)
        self.sign_up_by_address = RateLimit(burst=30, seconds=60)
        self.links_by_address = RateLimit(burst=20, seconds=30)
        self.passwords_by_user = RateLimit(burst=10, seconds=30)


def network_of(address: str) -> str:
    """What is counted as one: an IPv4 address, or the /64 of IPv6 that a single household has all of."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return str(parsed)
