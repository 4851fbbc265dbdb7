"""Feedback as data to train on: JSON lines in the forms that `fireside finetune` and TRL read, one row at a time.

What is not there any more (withdrawn, or gone with its conversation or its owner) and what has no consent is in no
export; nor is an answer of which it is not known what its model was shown, or that somebody else's words led to.
https://huggingface.co/docs/trl/dataset_formats, "conversational".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy import Row, case, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.chat.runs.plan import Turn, as_messages
from fireside.server.chat.tables import Message, Role, Run, Status
from fireside.server.db.base import now
from fireside.server.db.database import Database
from fireside.server.feedback.tables import MESSAGE_WINS, OTHER_WINS, Feedback, FeedbackConsent, Kind, Verdict

_FIRST = {Kind.RATING: 0, Kind.EDIT: 1, Kind.COMPARISON: 2, Kind.REGENERATION: 3}
"""Which record decides what an answer is worth, where several speak of it."""

Format = Literal["sft", "dpo", "kto"]

_PAGE = 50  # records; their texts are read one record at a time

_encode = msgspec.json.Encoder(order="deterministic").encode


async def export(database: Database, form: Format, *, weak: bool = False) -> AsyncGenerator[bytes]:
    """One line a row, of what there was when it began.

    sft: `messages`, which end with an answer that was marked up, won, or was written by a person in place of another;
    none that was marked down or edited. dpo: `prompt`, `chosen`, `rejected`; both of which were given to the same
    prompt. kto: `prompt`, `completion`, `label`. An answer comes once in sft and kto, as its thumb says, else its edit,
    else its comparison, else what it was preferred to.
    weak: answers that were given again, and of which nothing was said, count as well: the one that was marked up, or
    went on, against the other. Every row has its `provenance`.
    """
    last, until = "", now()
    while True:
        async with database.session() as session:
            query = select(Feedback.id).where(Feedback.consent, Feedback.created_at <= until, Feedback.id > last)
            ids = (await session.scalars(query.order_by(Feedback.id).limit(_PAGE))).all()
        for feedback_id in ids:
            # Each anew, because it may have been withdrawn since; and no connection waits for a slow reader.
            async with database.session() as session:
                lines = await _of_record(session, form, feedback_id, weak)
            for line in lines:
                yield line
        if len(ids) < _PAGE:
            return
        last = ids[-1]


async def _of_record(session: AsyncSession, form: Format, feedback_id: str, weak: bool) -> list[bytes]:
    query = select(Feedback, FeedbackConsent.id).outerjoin(FeedbackConsent, FeedbackConsent.user_id == Feedback.user_id)
    found = (await session.execute(query.where(Feedback.id == feedback_id, Feedback.consent))).one_or_none()
    if found is None or (judged := await _judged(session, found[0], weak)) is None:
        return []
    return [line async for line in _lines(session, form, *found, judged, weak)]


@dataclass(frozen=True)
class _Judged:
    """good and bad: whole answers to learn from, and to avoid. strength: "explicit"; "weak" where nobody said so."""

    good: tuple[Row[Any], ...]
    bad: tuple[Row[Any], ...]
    strength: str


async def _judged(session: AsyncSession, record: Feedback, weak: bool) -> _Judged | None:
    """What a record says of which answers; None if it says nothing."""
    columns = (
        Message.id, Message.parent_id, Message.content, Message.status, Message.model, Message.model_version,
        Message.parameters, Message.finish_reason, Message.is_blind, Message.system, Message.left_out,
        Message.is_copied, Message.created_at, Message.earlier_writers, Run.finished_at,
    )  # fmt: skip
    wanted = [record.message_id] + ([record.other_id] if record.other_id else [])
    found = select(*columns).outerjoin(Run, Run.id == Message.run_id).where(Message.id.in_(wanted))
    rows = {row.id: row for row in await session.execute(found)}
    if len(rows) < len(wanted) or any(row.is_blind for row in rows.values()):
        return None
    message, other = rows[record.message_id], rows.get(record.other_id or "")
    verdict, strength = record.verdict, "explicit"
    if verdict is None:
        if not weak or record.kind != Kind.REGENERATION:
            return None
        verdict, strength = await _kept(session, record), "weak"
    elif any(row.finished_at is not None and row.finished_at > record.changed_at for row in rows.values()):
        return None  # it was written on afterwards
    good: tuple[Row[Any], ...] = ()
    bad: tuple[Row[Any], ...] = ()
    every = tuple(row for row in (message, other) if row is not None)
    if verdict in (Verdict.UP, Verdict.BOTH_GOOD):
        good = every
    elif verdict in (Verdict.DOWN, Verdict.BOTH_BAD):
        bad = every
    elif verdict in MESSAGE_WINS:
        good, bad = every[:1], every[1:]
    elif verdict in OTHER_WINS:
        good, bad = every[1:], every[:1]
    else:
        return None
    if good and bad and good[0].content == bad[0].content:
        return None
    good, bad = tuple(filter(_is_whole, good)), tuple(filter(_is_whole, bad))
    return _Judged(good, bad, strength)


def _is_whole(row: Row[Any]) -> bool:
    """Neither stopped nor cut, which nobody should learn from; and it is known what it was given to."""
    if row.is_copied or row.system is None or row.left_out is None:
        return False
    return row.status == Status.COMPLETE and row.finish_reason != "length" and bool(row.content.strip())


async def _kept(session: AsyncSession, record: Feedback) -> Verdict | None:
    """Which of two answers somebody marked up and not the other, or else went on with."""
    both = [record.message_id, record.other_id or ""]
    ratings = await _ratings(session, both)
    marks = [{"up": 1, "down": -1}.get(ratings.get(id, ""), 0) for id in both]
    if marks[0] == marks[1]:
        went_on = set((await session.scalars(select(Message.parent_id).where(Message.parent_id.in_(both)))).all())
        marks = [int(id in went_on) for id in both]
    if marks[0] == marks[1]:
        return None
    return Verdict.BETTER if marks[0] > marks[1] else Verdict.WORSE


async def _ratings(session: AsyncSession, ids: list[Any]) -> dict[str, str]:
    """What thumbs say, of those that may be used."""
    found = select(Feedback.message_id, Feedback.verdict).where(
        Feedback.kind == Kind.RATING, Feedback.message_id.in_(ids), Feedback.consent
    )
    return {row.message_id: row.verdict or "" for row in await session.execute(found)}


async def _lines(
    session: AsyncSession, form: Format, record: Feedback, person: str | None, judged: _Judged, weak: bool
) -> AsyncGenerator[bytes]:
    if form == "dpo":
        if judged.good and judged.bad:
            (good,), (bad,) = judged.good, judged.bad
            shown = await _prompt(session, good)
            if shown is None or await _prompt(session, bad) != shown:
                return
            about = {"chosen": _origin(good), "rejected": _origin(bad)}
            pair = {"prompt": shown.messages, "chosen": [_answer(good)], "rejected": [_answer(bad)]}
            yield _line(pair, _provenance(record, person, judged, shown) | about)
        return
    row: dict[str, Any]
    for answer, label in _labelled(judged):
        if not await _decides(session, record, answer, weak) or (shown := await _prompt(session, answer)) is None:
            continue
        if form == "sft":
            if not label or not await _is_example(session, record, answer):
                continue
            row = {"messages": [*shown.messages, _answer(answer)]}
        else:
            row = {"prompt": shown.messages, "completion": [_answer(answer)], "label": label}
        yield _line(row, _provenance(record, person, judged, shown) | {"answer": _origin(answer)})


def _labelled(judged: _Judged) -> Iterator[tuple[Row[Any], bool]]:
    yield from ((row, True) for row in judged.good)
    yield from ((row, False) for row in judged.bad)


async def _decides(session: AsyncSession, record: Feedback, answer: Row[Any], weak: bool) -> bool:
    """Whether what an answer is worth is for this record to say: of those that say anything, it is of the first kind,
    and of that the latest."""
    about = select(Feedback).where(
        Feedback.consent, or_(Feedback.message_id == answer.id, Feedback.other_id == answer.id)
    )
    if not weak:
        about = about.where(Feedback.verdict.is_not(None))
    order = (Feedback.verdict.is_(None), case(_FIRST, value=Feedback.kind), Feedback.changed_at.desc())
    for one in (await session.scalars(about.order_by(*order, Feedback.id.desc()))).all():
        if one.id == record.id:
            return True
        judged = await _judged(session, one, weak)
        if judged is not None and any(row.id == answer.id for row, _ in _labelled(judged)):
            return False
    return False


async def _is_example(session: AsyncSession, record: Feedback, answer: Row[Any]) -> bool:
    """Whether a good answer is one to imitate."""
    if record.kind == Kind.REGENERATION:
        return False
    edited = select(Feedback.id).where(Feedback.kind == Kind.EDIT, Feedback.other_id == answer.id, Feedback.consent)
    return (await session.scalars(edited.limit(1))).first() is None


@dataclass(frozen=True)
class _Shown:
    """What an answer was given to. path: the ids of the messages in it."""

    messages: list[dict[str, Any]]
    path: list[str]


async def _prompt(session: AsyncSession, answer: Row[Any]) -> _Shown | None:
    """As the model was shown it; None if somebody else's words led there, or it was changed since."""
    columns = (Message.id, Message.parent_id, Message.run_id, Message.role, Message.content, Message.is_copied)
    path = select(*columns, literal(0).label("steps")).where(Message.id == answer.parent_id).cte(recursive=True)
    above = select(*columns, path.c.steps + 1).join(path, Message.id == path.c.parent_id)
    path = path.union_all(above)
    found = select(path, Run.finished_at).outerjoin(Run, Run.id == path.c.run_id).order_by(path.c.steps.desc())
    rows = (await session.execute(found)).all()
    if any(row.is_copied or (row.finished_at is not None and row.finished_at > answer.created_at) for row in rows):
        return None
    rows = rows[answer.left_out :]
    return _Shown(as_messages(answer.system, [Turn(row.role, row.content) for row in rows]), [row.id for row in rows])


def _answer(row: Row[Any]) -> dict[str, str]:
    return {"role": Role.ASSISTANT.value, "content": row.content}


def _origin(row: Row[Any]) -> dict[str, Any]:
    """Who wrote it; without a model, a person. What several wrote is no single one's: they are its `writers`, in turn,
    each with the end of its text in characters."""
    last = {
        "model": row.model,
        "model_version": row.model_version,
        "parameters": row.parameters if row.model else None,
    }
    if row.earlier_writers is None:
        return {"message": row.id, **last}
    writers = [{name: writer[name] for name in (*last, "end")} for writer in row.earlier_writers]
    writers.append(last | {"end": len(row.content)})
    return {"message": row.id, **dict.fromkeys(last), "writers": writers}


def _provenance(record: Feedback, person: str | None, judged: _Judged, shown: _Shown) -> dict[str, Any]:
    return {
        "feedback": record.id,
        "kind": record.kind,
        "verdict": record.verdict,
        "strength": judged.strength,
        "reasons": record.reasons,
        "comment": record.comment,
        "given_at": record.changed_at.isoformat().replace("+00:00", "Z"),
        "person": person,
        "path": shown.path,
    }


def _line(row: dict[str, Any], provenance: dict[str, Any]) -> bytes:
    return _encode({**row, "provenance": provenance}) + b"\n"
