"""How the models stand: who wins in comparisons, and what thumbs say. Counted in the database, whoever gave it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from fireside.server.chat.tables import Message, Status
from fireside.server.feedback.intervals import wilson
from fireside.server.feedback.schemas import Leaderboard, ModelStanding, PairStanding
from fireside.server.feedback.tables import Feedback, Kind, Verdict

_Weights = tuple[str, str | None]  # name and version


async def leaderboard(session: AsyncSession) -> Leaderboard:
    """Of weights, and not of names: a model that was trained further is another one. A model compared with itself wins
    and loses nothing, nor does one that was stopped or failed. What was written elsewhere may claim any name.

    A vote is of what the first writer wrote: nobody goes on with an answer before it. A thumb of what several wrote may
    mean any of them, and counts for none.
    """
    left, right = aliased(Message), aliased(Message)
    sides = [*_compared(left, "left"), *_compared(right, "right")]
    cast = (
        select(*sides, Feedback.verdict)
        .join(left, left.id == Feedback.message_id)
        .join(right, right.id == Feedback.other_id)
        .where(Feedback.kind == Kind.COMPARISON, Feedback.verdict.is_not(None))
        .where(_was_complete(left), _was_complete(right))
        .subquery()
    )
    counted: list[ColumnElement[Any]] = [*cast.c, func.count()]
    votes = select(*counted).group_by(*cast.c)
    rated = (Message.model, Message.model_version, Feedback.verdict)
    thumbs = (
        select(*rated, func.count())
        .join(Message, Message.id == Feedback.message_id)
        .where(Feedback.kind == Kind.RATING, Message.model.is_not(None), Message.is_copied.is_(False))
        .where(Message.earlier_writers.is_(None))
        .group_by(*rated)
    )
    exportable = select(func.count()).select_from(Feedback).where(Feedback.consent)
    return standings(
        [
            ((a, b), (c, d), verdict, n)
            for a, b, c, d, verdict, n in await session.execute(votes)
            if a and c and verdict
        ],
        [((a, b), verdict, n) for a, b, verdict, n in await session.execute(thumbs) if a and verdict],
        await session.scalar(exportable) or 0,
    )


def _compared(answer: type[Message], side: str) -> list[ColumnElement[Any]]:
    """Name and version of what wrote it until the vote."""
    return [
        case((answer.earlier_writers.is_(None), getattr(answer, name)), else_=_first(answer, name)).label(
            f"{side}_{name}"
        )
        for name in ("model", "model_version")
    ]


def _was_complete(answer: type[Message]) -> ColumnElement[bool]:
    """At the vote, as far as is known: of what the same model went on with, how it ended is."""
    is_complete = and_(answer.earlier_writers.is_(None), answer.status == Status.COMPLETE)
    return or_(is_complete, _first(answer, "finish_reason").is_not(None))


def _first(answer: type[Message], field: str) -> ColumnElement[Any]:
    value: ColumnElement[Any] = answer.earlier_writers[(0, field)].as_string()
    return value


def standings(
    votes: Iterable[tuple[_Weights, _Weights, str, int]], thumbs: Iterable[tuple[_Weights, str, int]], exportable: int
) -> Leaderboard:
    """votes: left, right, verdict and how often. thumbs: model, verdict and how often."""
    pairs: dict[tuple[_Weights, _Weights], list[int]] = defaultdict(
        lambda: [0, 0, 0]
    )  # wins of the first, losses, ties
    for left, right, verdict, count in votes:
        if left == right:
            continue
        first, second = sorted((left, right), key=_order)
        outcome = (
            2 if verdict not in (Verdict.LEFT, Verdict.RIGHT) else int((verdict == Verdict.LEFT) != (left == first))
        )
        pairs[first, second][outcome] += count
    rated: dict[_Weights, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for model, verdict, count in thumbs:
        rated[model][verdict] += count
    known = {weights for pair in pairs for weights in pair} | set(rated)
    models = []
    for weights in known:
        wins = sum(p[0] for (a, _), p in pairs.items() if a == weights)
        wins += sum(p[1] for (_, b), p in pairs.items() if b == weights)
        losses = sum(p[1] for (a, _), p in pairs.items() if a == weights)
        losses += sum(p[0] for (_, b), p in pairs.items() if b == weights)
        ties = sum(p[2] for pair, p in pairs.items() if weights in pair)
        up, down = rated[weights][Verdict.UP], rated[weights][Verdict.DOWN]
        models.append(
            ModelStanding(
                model=weights[0],
                version=weights[1],
                wins=wins,
                losses=losses,
                ties=ties,
                win_rate=wilson(wins + ties / 2, wins + losses + ties),
                up=up,
                down=down,
                up_rate=wilson(up, up + down),
            )
        )
    models.sort(key=lambda m: (-m.win_rate.rate if m.win_rate else 1, m.model, m.version or ""))
    index = {(m.model, m.version): i for i, m in enumerate(models)}
    met = []
    for (first, second), (wins, losses, ties) in pairs.items():
        a, b = index[first], index[second]
        if a > b:  # the higher of two comes first
            a, b, wins, losses = b, a, losses, wins
        met.append(PairStanding(first=a, second=b, wins=wins, losses=losses, ties=ties))
    met.sort(key=lambda pair: (pair.first, pair.second))
    return Leaderboard(models=models, pairs=met, exportable=exportable)


def _order(weights: _Weights) -> tuple[str, str]:
    return weights[0], weights[1] or ""
