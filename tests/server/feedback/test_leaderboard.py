"""Who wins, and how sure that is."""

from __future__ import annotations

import pytest

from fireside.server.feedback.intervals import wilson
from fireside.server.feedback.leaderboard import standings
from fireside.server.feedback.schemas import PairStanding
from tests.server.chat.test_messages import ENDLESS
from tests.server.feedback.conftest import Giver
from tests.server.scripted_app import Scripted

A, B, C = ("a", "1"), ("b", "1"), ("a", "2")


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_the_published_ones(successes: int, count: int, low: float, high: float) -> None:
    """R. G. Newcombe (1998), "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17,
    table I, method 3."""
    interval = wilson(successes, count)
    assert interval is not None and interval.rate == successes / count
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    mirrored = wilson(count - successes, count)
    assert mirrored is not None and mirrored.high == pytest.approx(1 - interval.low)


def test_nothing_is_said_of_nothing() -> None:
    assert wilson(0, 0) is None


def test_standings_whichever_side_and_order() -> None:
    votes = [(A, B, "left", 3), (B, A, "left", 1), (B, A, "right", 2), (A, B, "both_bad", 1), (B, A, "both_good", 1)]
    votes += [(A, A, "left", 50), (C, A, "right", 1)]
    board = standings(votes, [(B, "up", 2), (B, "down", 1)], 7)
    assert [(m.model, m.version, m.wins, m.losses, m.ties) for m in board.models] == [
        ("a", "1", 6, 1, 2), ("b", "1", 1, 5, 2), ("a", "2", 0, 1, 0),
    ]  # fmt: skip
    first = board.models[0]
    assert first.win_rate == wilson(7, 9) and first.up_rate is None
    assert board.models[1].up_rate == wilson(2, 3)
    assert board.pairs == [
        PairStanding(first=0, second=1, wins=5, losses=1, ties=2),
        PairStanding(first=0, second=2, wins=1, losses=0, ties=0),
    ]
    assert board.exportable == 7


async def test_what_people_say_is_counted(ada: Giver, bob: Giver) -> None:
    assert await ada.get("admin/feedback/leaderboard") == {"models": [], "pairs": [], "exportable": 0}
    for giver in (ada, bob):
        _, answer = await giver.asked(await giver.converse(), "Why?")
        await giver.rate(answer, "up")
        begun = await giver.compare(answer, "tiny", "other")
        tree = await giver.message(begun["feedback"]["conversation_id"], begun["left"]["id"])
        side = "left" if tree["content"] == "Hello there." else "right"
        await giver.compare(answer, "tiny", "other")  # nobody votes on this one
        await giver.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": side}, 200)
    board = await ada.get("admin/feedback/leaderboard")
    assert [(m["model"], m["version"], m["wins"], m["losses"], m["up"]) for m in board["models"]] == [
        ("tiny", "weights of tiny", 2, 0, 2), ("other", "weights of other", 0, 2, 0),
    ]  # fmt: skip
    assert board["pairs"] == [{"first": 0, "second": 1, "wins": 2, "losses": 0, "ties": 0}]
    assert "@example" not in str(board)


async def test_who_was_stopped_has_not_lost(ada: Giver, bob: Giver, script: Scripted) -> None:
    _, answer = await bob.asked(await bob.converse(), "Why?")
    script.answer = ENDLESS
    begun = await bob.post(f"messages/{answer['id']}/comparison", {"models": ["tiny", "other"]})
    for side in ("left", "right"):
        await bob.post(f"runs/{begun[side]['run_id']}/stop", status=200)
    await bob.post(f"feedback/{begun['feedback']['id']}/vote", {"verdict": "left"}, 200)
    assert (await ada.get("admin/feedback/leaderboard"))["pairs"] == []
