"""All that is somebody's, as a zip file that is made while it is sent."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from functools import partial

from sqlalchemy import select
from sqlalchemy.orm import defer

from fireside.server.accounts.schemas import UserView
from fireside.server.accounts.tables import User
from fireside.server.chat.projects import ProjectOut
from fireside.server.chat.prompts import PromptOut
from fireside.server.chat.tables import Conversation, Message, Project, Prompt
from fireside.server.db.database import Database
from fireside.server.documents.words import Words
from fireside.server.feedback.schemas import FeedbackOut
from fireside.server.feedback.tables import Feedback
from fireside.server.moving import native
from fireside.server.moving.export import file_name, to_json, to_markdown
from fireside.server.moving.exporter import Exporter
from fireside.server.sharing.snapshots import branch
from fireside.server.sharing.tables import Share

_AT_ONCE = 50  # rows
_FEEDBACK_AT_ONCE = 1000  # rows

# One kind of thing, as files: names and contents. None of them holds a connection of the database while it yields:
# whoever reads slowly would keep it from everybody else.
Part = Callable[[Database, User, Words], AsyncIterator[tuple[str, bytes]]]


async def _profile(_: Database, user: User, __: Words) -> AsyncIterator[tuple[str, bytes]]:
    yield "profile.json", native.encode(UserView.model_validate(user).model_dump(exclude={"id"}))


async def _prompts(database: Database, user: User, _: Words) -> AsyncIterator[tuple[str, bytes]]:
    async with database.session() as session:
        rows = await session.scalars(select(Prompt).where(Prompt.user_id == user.id).order_by(Prompt.id))
        data = native.encode([PromptOut.model_validate(row).model_dump() for row in rows])
    yield "prompts.json", data


async def _projects(database: Database, user: User, _: Words) -> AsyncIterator[tuple[str, bytes]]:
    async with database.session() as session:
        rows = await session.scalars(select(Project).where(Project.user_id == user.id).order_by(Project.id))
        data = native.encode([ProjectOut.model_validate(row).model_dump() for row in rows])
    yield "projects.json", data


async def _feedback(database: Database, user: User, _: Words) -> AsyncIterator[tuple[str, bytes]]:
    """In one file, or in several of so many each: `feedback.json`, `feedback-2.json`."""
    last, count = "", 0
    while True:
        own = select(Feedback).where(Feedback.user_id == user.id, Feedback.id > last)
        async with database.session() as session:
            rows = (await session.scalars(own.order_by(Feedback.id).limit(_FEEDBACK_AT_ONCE))).all()
            data = native.encode([FeedbackOut.model_validate(row).model_dump() for row in rows])
        if rows or not count:
            count += 1
            yield f"feedback-{count}.json" if count > 1 else "feedback.json", data
        if len(rows) < _FEEDBACK_AT_ONCE:
            return
        last = rows[-1].id


async def _shared_links(database: Database, user: User, _: Words) -> AsyncIterator[tuple[str, bytes]]:
    """Without their tokens: who finds this file is not to read along."""
    wanted = select(Share).where(Share.user_id == user.id).order_by(Share.id).options(defer(Share.snapshot))
    async with database.session() as session:
        fields = ("created_at", "updated_at", "expires_at", "conversation_id", "title", "options")
        rows = [{name: getattr(row, name) for name in fields} for row in await session.scalars(wanted)]
    yield "shared-links.json", native.encode(rows)


async def _conversations(database: Database, user: User, words: Words) -> AsyncIterator[tuple[str, bytes]]:
    """Each as JSON, which `native.py` describes and an import reads back, and the branch that is shown as Markdown."""
    last = -1
    while True:
        wanted = (
            select(Conversation.number, Conversation.id)
            .where(Conversation.user_id == user.id, Conversation.is_arriving.is_(False), Conversation.number > last)
            .order_by(Conversation.number)
            .limit(_AT_ONCE)
        )
        async with database.session() as session:
            rows = (await session.execute(wanted)).all()
        if not rows:
            return
        for number, conversation_id in rows:
            last = number
            async with database.session() as session:
                own = select(Conversation).where(Conversation.id == conversation_id)
                if (conversation := (await session.scalars(own)).one_or_none()) is None:
                    continue  # deleted in the meantime
                data = await to_json(session, conversation)
                path: list[Message] = await branch(session, conversation, None)
            # The end of the id before the title, of which a long one is cut.
            title = f"{conversation.created_at:%Y-%m-%d} {conversation.id[-8:]} {conversation.title[:60]}"
            yield f"conversations/{file_name(title, 'json')}", data
            text = to_markdown(words, conversation, path, reasoning=False)
            yield f"conversations/{file_name(title, 'md')}", text.encode("utf-8", "replace")


# A room that keeps something of a person's adds what it keeps here, and with it to every export of an account.
PARTS: list[Part] = [_profile, _prompts, _projects, _shared_links, _feedback, _conversations]


async def account_zip(database: Database, exporter: Exporter, user: User, words: Words) -> AsyncGenerator[bytes]:
    """In pieces, one file after the other; no more than one conversation is in memory."""
    sent = _Sent()
    archive = zipfile.ZipFile(sent, "w", zipfile.ZIP_DEFLATED)
    try:
        for part in PARTS:
            async for name, data in part(database, user, words):
                await exporter.run(partial(archive.writestr, name, data))
                if piece := sent.take():
                    yield piece
    finally:
        with suppress(ValueError):  # a thread may be writing yet, for who has gone
            archive.close()
    yield sent.take()


class _Sent(io.RawIOBase):
    """What has been written and not yet been taken. It cannot be sought in, and zipfile writes so that it need not."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data
