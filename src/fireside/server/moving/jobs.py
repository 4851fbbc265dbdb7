"""Imports that run: one a person at a time, one conversation after the other, read in a thread."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from fireside.server.db.base import new_id, now
from fireside.server.db.database import Database
from fireside.server.db.trouble import is_for_good, may_pass
from fireside.server.errors import ApiError, ClientDisconnected
from fireside.server.moving.archive import Unreadable, read
from fireside.server.moving.json_stream import Stopped
from fireside.server.moving.parsed import Conversation, Reason, Skipped
from fireside.server.moving.portions import store_all
from fireside.server.moving.schemas import ImportOut, ImportReport, SkippedOut
from fireside.server.moving.store import remove_unfinished
from fireside.server.moving.tables import Import
from fireside.settings import Settings

MAX_AT_ONCE = 4  # on one server, uploads included
KEPT = 20  # reports of one person
_LISTED = 500  # of what was skipped, in one report; the rest is counted
_BUFFER = 1 << 20
_PATIENCE = 60.0  # seconds without a byte of an upload
_SPARE = 256 << 20  # bytes of the disk that no upload takes

log = logging.getLogger(__name__)


@dataclass
class Job:
    """An import, from the first byte of its upload on. done: of total bytes that are read, unpacked."""

    user_id: str
    name: str
    id: str = ""
    done: int = 0
    total: int = 1
    is_cancelled: bool = False
    report: ImportReport = field(default_factory=ImportReport)
    task: asyncio.Task[None] | None = None

    def note(self, done: int, total: int) -> None:
        """From the thread that reads."""
        self.done, self.total = done, total
        if self.is_cancelled:
            raise Stopped

    def skip(self, skipped: Skipped) -> None:
        self.report.skipped_count += skipped.count
        listed = self.report.skipped
        if len(listed) < _LISTED:
            listed.append(SkippedOut(**vars(skipped)))
        elif rest := next((one for one in listed[_LISTED:] if one.reason is skipped.reason), None):
            rest.count += skipped.count
        else:
            listed.append(SkippedOut(reason=skipped.reason, where="", title="", count=skipped.count, detail=""))


class _Trouble(Exception):
    """The database takes nothing at present."""


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="import")


class Importer:
    """Those of one server."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._jobs: dict[str, Job] = {}  # by person
        self._threads = _threads()
        self._is_closing = False

    async def start(self) -> None:
        """What ran when the server died is over. Imported again, it goes on where it was."""
        self._is_closing = False
        async with self._database.session() as session:
            await session.execute(
                update(Import).where(Import.status == "running").values(status="interrupted", finished_at=now())
            )
            await remove_unfinished(session)

    async def close(self) -> None:
        self._is_closing = True
        tasks = [job.task for job in self._jobs.values() if job.task]
        for job in self._jobs.values():
            job.is_cancelled = True
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._threads = _threads()  # for a server that starts again; none has begun yet

    def abandon(self, user_id: str) -> None:
        """Of somebody who is gone."""
        if job := self._jobs.get(user_id):
            job.is_cancelled = True

    def running(self, user_id: str, import_id: str) -> Job | None:
        job = self._jobs.get(user_id)
        return job if job is not None and job.id == import_id else None

    async def receive(self, user_id: str, name: str, declared: int | None, chunks: AsyncIterator[bytes]) -> ImportOut:
        """Takes an upload, and begins to import it.

        Raises `ApiError`: 409 while another one of the person's runs, 429 while too many people's do, 413 for more than
        `max_import_bytes`, 400 for nothing, 507 where the disk has no room.
        """
        self._check_room(user_id, declared)
        job = self._jobs[user_id] = Job(user_id, name)
        file: IO[bytes] | None = None
        try:
            # Without a name: whatever becomes of this process, nothing of it stays behind.
            home = self._settings.home
            await asyncio.to_thread(home.mkdir, parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=home)  # noqa: SIM115 - closed by whoever has it last
            await self._write(file, chunks)
            async with self._database.session() as session:
                row = Import(id=new_id(), user_id=user_id, name=name, status="running", report={}, skipped=[])
                session.add(row)
                await session.flush()
                old = select(Import.id).where(Import.user_id == user_id).order_by(Import.id.desc()).offset(KEPT)
                await session.execute(delete(Import).where(Import.id.in_((await session.scalars(old)).all())))
            job.id = row.id
            job.task = asyncio.create_task(self._run(job, file))
            return self.view(row)
        except BaseException:
            if file is not None:
                file.close()
            del self._jobs[user_id]
            raise

    def view(self, row: Import, *, whole: bool = False) -> ImportOut:
        """whole: with the list of what was skipped, once it is over."""
        job = self.running(row.user_id, row.id)
        report = job.report if job else ImportReport.model_validate(row.report)
        skipped = row.skipped if whole and not job else []
        report = report.model_copy(update={"skipped": [SkippedOut.model_validate(one) for one in skipped]})
        return ImportOut(
            id=row.id,
            created_at=row.created_at,
            name=row.name,
            # One that runs nowhere could not write its end down.
            status="running" if job else "interrupted" if row.status == "running" else row.status,  # type: ignore[arg-type]
            finished_at=row.finished_at,
            progress=min(job.done / max(job.total, 1), 1.0) if job else 1.0,
            report=report,
        )

    def _check_room(self, user_id: str, declared: int | None) -> None:
        limit = self._settings.max_import_bytes
        if declared is not None and declared > limit:
            raise _too_large(limit)
        if user_id in self._jobs:
            raise ApiError(409, "an import of yours is running; wait for its end, or cancel it", code="import_running")
        if len(self._jobs) >= MAX_AT_ONCE or self._is_closing:
            raise ApiError(
                429,
                "other people are importing; try again in a few minutes",
                type="rate_limit_error",
                code="too_many_imports",
                headers={"Retry-After": "60", "Connection": "close"},
            )
        if not self._has_room(declared or 0):
            raise ApiError(
                507,
                "the server's disk has no room for it",
                type="server_error",
                code="disk_full",
                headers={"Connection": "close"},
            )

    def _has_room(self, size: int) -> bool:
        place = self._settings.home if self._settings.home.exists() else Path.cwd()
        return shutil.disk_usage(place).free >= size + _SPARE

    async def _write(self, file: IO[bytes], chunks: AsyncIterator[bytes]) -> None:
        limit, size, buffer = self._settings.max_import_bytes, 0, bytearray()
        iterator = aiter(chunks)
        while True:
            try:
                chunk = await asyncio.wait_for(anext(iterator), _PATIENCE)
            except StopAsyncIteration:
                break
            except TimeoutError:
                raise ClientDisconnected from None
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            buffer += chunk
            if len(buffer) >= _BUFFER:
                await asyncio.to_thread(file.write, bytes(buffer))
                buffer.clear()
        if not size:
            raise ApiError(400, "the upload is empty", code="empty_upload")
        await asyncio.to_thread(file.write, bytes(buffer))
        await asyncio.to_thread(file.seek, 0)

    async def _run(self, job: Job, file: IO[bytes]) -> None:
        status = "failed"
        try:
            await self._import(job, file)
            status = "complete"
        except Stopped:
            status = "interrupted" if self._is_closing else "cancelled"
        except Unreadable as error:
            job.report.problem = str(error)
        except _Trouble as error:
            log.warning("an import was interrupted: %s", error.__cause__)
            status = "interrupted"
        except Exception:
            log.exception("an import failed")
            job.report.problem = "the server failed; its log says why"
        finally:
            file.close()
            try:
                async with self._database.session() as session:
                    report = job.report.model_dump(mode="json")
                    ended = {"status": status, "finished_at": now(), "skipped": report.pop("skipped"), "report": report}
                    await session.execute(update(Import).where(Import.id == job.id).values(**ended))
            except SQLAlchemyError:
                log.exception("the report of an import was not kept")
            finally:
                del self._jobs[job.user_id]

    async def _import(self, job: Job, file: IO[bytes]) -> None:
        loop = asyncio.get_running_loop()
        reader = read(file, job.name, self._settings.max_import_bytes, job.note)
        while True:
            item = await loop.run_in_executor(self._threads, next, reader, None)
            if item is None:
                return
            if job.is_cancelled:
                raise Stopped
            if isinstance(item, Skipped):
                job.skip(item)
            else:
                await self._store(job, item)

    async def _store(self, job: Job, conversation: Conversation) -> None:
        def check() -> None:
            if self._is_closing:
                raise Stopped
            if not self._has_room(0):
                raise Unreadable("the server's disk has no room for all of it")

        try:
            stored = await store_all(self._database, job.user_id, conversation, check)
        except (SQLAlchemyError, ConnectionError) as error:
            if not is_for_good(error):
                raise (_Trouble if may_pass(error) else error) from error
            log.warning("a conversation was not imported: %s", type(getattr(error, "orig", error)).__name__)
            job.skip(Skipped(Reason.REFUSED, title=conversation.title[:200]))
            return
        report = job.report
        report.messages += stored.messages
        if stored.is_new:
            report.conversations += 1
        elif stored.messages:
            report.changed += 1
        else:
            report.unchanged += 1


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"the upload is larger than the {limit:,} bytes that this server takes (its setting max_import_bytes)",
        code="request_too_large",
        headers={"Connection": "close"},
    )
