"""Token buckets: how many tries, how soon again, how much memory."""

from __future__ import annotations

import pytest

from fireside.server.accounts.limits import RateLimit, network_of
from fireside.server.errors import ApiError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def tries(limit: RateLimit, key: str = "a") -> int:
    """How many are left."""
    for count in range(1000):
        try:
            limit.take(key)
        except ApiError as error:
            assert error.status_code == 429
            return count
    raise AssertionError("no end of them")


def test_a_burst_and_then_one_at_a_time() -> None:
    clock = Clock()
    limit = RateLimit(5, 10, clock=clock)
    assert (tries(limit), tries(limit, "b")) == (5, 5)
    clock.now += 9.5
    with pytest.raises(ApiError) as caught:
        limit.take("a")
    assert caught.value.headers == {"Retry-After": "1"}
    clock.now += 0.5
    assert tries(limit) == 1
    clock.now += 25
    assert tries(limit) == 2
    clock.now += 10_000
    assert tries(limit) == 5


def test_what_is_given_back_can_be_taken_again() -> None:
    limit = RateLimit(2, 10, clock=Clock())
    limit.take("a")
    limit.give_back("a")
    limit.give_back("unheard of")
    assert tries(limit) == 2


def test_memory_is_bounded_and_the_full_are_forgotten_first() -> None:
    clock = Clock()
    limit = RateLimit(2, 10, buckets=100, clock=clock)
    tries(limit, "early")
    clock.now += 15  # "early" has one try again, and is not full
    for i in range(99):
        limit.take(f"once{i}")
    clock.now += 1
    limit.take("one more")
    assert len(limit._full_at) == 100
    clock.now += 4  # now it is
    limit.take("another")
    assert "early" not in limit._full_at and len(limit._full_at) == 100
    clock.now += 10
    limit.take("the rest is full")
    assert len(limit._full_at) < 10


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("local", "local"),
    ],
)
def test_what_counts_as_one(address: str, network: str) -> None:
    assert network_of(address) == network
