"""`RunHub`: generations that belong to the server, whoever listens or does not."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update

from fireside.server.chat.runs.answering import Answered, write_answer
from fireside.server.chat.runs.journal import Journal
from fireside.server.chat.runs.live import Ending, LiveRun, encode, frame
from fireside.server.chat.runs.plan import Plan, fitted_prompt
from fireside.server.chat.runs.recovery import INTERRUPTED, recover
from fireside.server.chat.runs.titles import write_title
from fireside.server.chat.tables import Conversation, Run, Status
from fireside.server.db.base import now
from fireside.server.db.database import Database
from fireside.server.errors import ApiError, as_api_error, internal_error
from fireside.server.metrics import Metrics

EVENTS_KEPT = timedelta(days=1)
TEMPORARY_KEPT_SECONDS = 600.0  # a temporary answer, after its end, for a reader who was cut off
MAX_RUNS_EACH = 16  # of one person at a time
MAX_TEMPORARY_KEPT = 32  # of one person, for those ten minutes

_PRUNE_SECONDS = 3600.0
_UNLOADED = {
    "message": "an administrator unloaded the model while this was written; another can continue it",
    "code": "model_unloaded",
}

logger = logging.getLogger(__name__)


class RunHub:
    """Between `start` and `close`, in one process per database: what it finds running at its start was cut off."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._journal = Journal(database, self._taken_over)
        self._runs: dict[str, LiveRun] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._reserved: Counter[str] = Counter()  # by person: runs that are about to begin
        self.on_taken_over: Callable[[], None] | None = None
        """Another server has the database now: this one should end."""
        self._is_taken_over = False

    async def start(self) -> None:
        """Raises `DatabaseInUse`: what another server writes must not be taken for cut off."""
        await self._database.take()
        await recover(self._database)
        self._journal.start()
        self._spawn(self._prune_hourly())

    async def close(self) -> None:
        """Ends every run as interrupted, with what it has written so far."""
        for run in self._runs.values():
            self._end(run, Status.INTERRUPTED, INTERRUPTED)
        tasks = [run.task for run in self._runs.values() if run.task is not None] + list(self._background)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._journal.close()

    def _taken_over(self) -> None:
        self._is_taken_over = True
        for run in self._runs.values():
            self._end(run, Status.INTERRUPTED)
        if self.on_taken_over is not None:
            self.on_taken_over()

    # Runs

    @contextmanager
    def room(self, user_id: str) -> Iterator[None]:
        """Keeps a place for a run that is to begin within it.

        Raises `ApiError`: 429 for one who has enough already, 503 where nothing can be written any more.
        """
        if self._is_taken_over:
            raise ApiError(
                503, "another server has taken this one's place", type="server_error", code="server_replaced"
            )
        mine = [run for run in self._runs.values() if run.user_id == user_id]
        running = sum(run.task is not None and run.ending is None for run in mine)
        if running + self._reserved[user_id] >= MAX_RUNS_EACH:
            raise ApiError(
                429,
                f"{MAX_RUNS_EACH} of your answers are being written; wait for one, or stop it",
                type="rate_limit_error",
                code="too_many_runs",
                headers={"Retry-After": "5"},
            )
        self._reserved[user_id] += 1
        try:
            yield
        finally:
            self._reserved[user_id] -= 1
            if not self._reserved[user_id]:
                del self._reserved[user_id]

    @contextmanager
    def launching(self, plans: Iterable[Plan]) -> Iterator[None]:
        """Begins runs at its end, for a `with` around the commit of their rows; none if that raises.

        They can be stopped from its beginning on: whoever finds a row, or has taken away what it belongs to, finds the
        run as well.
        """
        runs = [(self._register(plan), plan) for plan in plans]
        try:
            yield
        except BaseException:
            for run, _ in runs:
                run.close()
            raise
        for run, plan in runs:
            self._launch(run, plan)

    def _register(self, plan: Plan) -> LiveRun:
        run = LiveRun(
            id=plan.run_id,
            user_id=plan.user_id,
            model=plan.model.name,
            conversation_id=plan.conversation_id,
            message_id=plan.message_id,
            base_content=plan.content,
            base_reasoning=plan.reasoning,
            is_blind=plan.is_blind,
        )
        self._runs[run.id] = run
        self._spawn(self._forget(run))
        return run

    def _launch(self, run: LiveRun, plan: Plan) -> None:
        if run.stopped_as is not None:  # since it was registered
            self._journal.finish(run, Ending(status=run.stopped_as, error=run.stopped_because))
            return
        run.task = asyncio.create_task(self._answer(run, plan))
        # A callback and not the task's own last lines, which a task that is cancelled before its first step never runs.
        run.task.add_done_callback(lambda task: self._ended(run, task))
        if plan.question is not None:
            self._spawn(self._write_title(run, plan, plan.question))

    def find(self, run_id: str) -> LiveRun | None:
        """A run that is not over, or a temporary one that was not long ago."""
        return self._runs.get(run_id)

    async def stop(self, run_id: str) -> None:
        """Returns once it has ended, with what it said kept and the engine free. Nothing to do for one that is over."""
        if (run := self._runs.get(run_id)) is not None:
            self._end(run, Status.STOPPED)
            await run.wait_over()

    async def stop_in(self, user_id: str, conversation_ids: Collection[str]) -> None:
        """Stops all that is being written in conversations of the person's. Once their deletion is committed, nothing
        more can begin there."""
        runs = [run for run in self._runs.values() if run.user_id == user_id]
        await asyncio.gather(*(self.stop(run.id) for run in runs if run.conversation_id in conversation_ids))

    def abandon(self, user_id: str) -> None:
        """Ends all runs of a person who was disabled or deleted, once that is committed. Does not wait for it."""
        for run in self._runs.values():
            if run.user_id == user_id:
                self._end(run, Status.STOPPED)

    def writing_with(self, model: str) -> int:
        """How many answers."""
        return sum(run.model == model and run.ending is None for run in self._runs.values())

    def interrupt(self, model: str) -> None:
        """Ends all that is written with `model`, which is about to go. What is written stays and can be continued."""
        for run in self._runs.values():
            if run.model == model:
                self._end(run, Status.INTERRUPTED, _UNLOADED)

    async def events(self, run_id: str, after: int) -> AsyncGenerator[bytes]:
        """The events behind the one numbered `after`, as server-sent events, up to the last one.

        Of a run that is over they come from the database; if they were pruned, its end alone is told, and that
        they were.
        """
        if (live := self._runs.get(run_id)) is not None:
            async with aclosing(live.listen(after)) as events:
                async for data in events:
                    yield data
            return
        async with self._database.session() as session:
            run = (await session.scalars(select(Run).where(Run.id == run_id))).one_or_none()
        if run is None or run.status == Status.RUNNING:  # deleted, or begun a moment ago: the reader asks again
            return
        if run.events is None:
            ending = Ending(status=Status(run.status), error=run.error).event
            yield frame(after + 1, encode(ending | {"is_pruned": True}))
        else:
            lines = run.events.split("\n")
            yield b"".join(frame(n, line) for n, line in enumerate(lines[after:], after + 1))

    async def _answer(self, run: LiveRun, plan: Plan) -> Answered:
        fitted = await fitted_prompt(plan)
        if not plan.continues or plan.left_out == fitted.left_out:
            run.left_out = fitted.left_out
        return await write_answer(plan, fitted, self._metrics, lambda event: self._journal.append(run, event))

    def _end(self, run: LiveRun, status: Status, because: dict[str, Any] | None = None) -> None:
        if run.ending is None and run.stopped_as is None:
            run.stopped_as, run.stopped_because = status, because
            if run.task is not None:
                run.task.cancel()

    def _ended(self, run: LiveRun, task: asyncio.Task[Answered]) -> None:
        self._journal.finish(run, _ending_of(run, task))
        run.task = None  # an error's frames hold the whole prompt

    async def _forget(self, run: LiveRun) -> None:
        await run.wait_over()
        if run.is_temporary:
            self._drop_oldest(run.user_id)
            await asyncio.sleep(TEMPORARY_KEPT_SECONDS)
        self._runs.pop(run.id, None)

    def _drop_oldest(self, user_id: str) -> None:
        over = [r.id for r in self._runs.values() if r.is_temporary and r.user_id == user_id and r.ending is not None]
        for run_id in over[:-MAX_TEMPORARY_KEPT]:
            del self._runs[run_id]

    async def _write_title(self, run: LiveRun, plan: Plan, question: str) -> None:
        try:
            title = await write_title(plan.model, question)
        except Exception as error:  # it keeps its first words
            logger.info("no title for a conversation: %s", error)
            return
        if not title:
            return
        async with self._database.session() as session:
            changed = await session.execute(
                update(Conversation)
                .where(Conversation.id == plan.conversation_id, Conversation.has_own_title.is_(False))
                .values(title=title)
                .execution_options(synchronize_session=False)
            )
        if changed.rowcount and run.ending is None:  # type: ignore[attr-defined]
            self._journal.append(run, {"type": "title", "title": title})

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Before and after

    async def _prune_hourly(self) -> None:
        while True:
            with suppress(Exception):
                await self.prune()
            await asyncio.sleep(_PRUNE_SECONDS)

    async def prune(self) -> None:
        """Forgets the events of runs that ended over a day ago; their messages hold what they said."""
        async with self._database.session() as session:
            await session.execute(
                update(Run)
                .where(Run.finished_at < now() - EVENTS_KEPT, Run.events.is_not(None))
                .values(events=None)
                .execution_options(synchronize_session=False)
            )


def _ending_of(run: LiveRun, task: asyncio.Task[Answered]) -> Ending:
    if task.cancelled():
        status = run.stopped_as or Status.STOPPED
        return Ending(status=status, error=run.stopped_because)
    error = task.exception()
    if error is None:
        answered = task.result()
        return Ending(status=Status.COMPLETE, usage=answered.usage, finish_reason=answered.finish_reason)
    told = as_api_error(error) if isinstance(error, Exception) else None
    if told is None:
        logger.error("an answer failed", exc_info=error)
        told = internal_error()
    if run.is_blind:  # errors name models
        logger.info("an answer that is being compared failed: %s", told.detail)
        return Ending(status=Status.FAILED, error={"message": "it could not be written", "code": None})
    return Ending(status=Status.FAILED, error={"message": told.detail, "code": told.code})
