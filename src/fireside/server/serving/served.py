"""`ServedModels`: loads models and unloads them while others answer, and remembers which."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.assistant.text_model import TextModel
from fireside.engine.client import EngineState, EngineUnavailable
from fireside.engine.memory import MemoryNeed
from fireside.errors import FiresideError
from fireside.models.local import DamagedModel
from fireside.server.chat.runs.hub import RunHub
from fireside.server.chat.schemas import Parameters
from fireside.server.db.database import Database
from fireside.server.errors import ApiError
from fireside.server.registry import ModelRegistry
from fireside.server.serving.library import Library
from fireside.server.serving.reckoning import Reckoning, reckon
from fireside.server.serving.schemas import ServedModelsView, ServedModelView
from fireside.server.serving.tables import ServedModel
from fireside.settings import Settings

_LOOK_SECONDS = 0.1  # how often it is looked whether a model that is to go has finished its answers

logger = logging.getLogger(__name__)


class ServedModels:
    """Between `start` and `close`. What changes the registry happens one at a time, under a lock.

    A model that is unloaded is first taken out of the registry, so that nobody gets it any more; who got it before
    holds it, and its engine is closed when they have finished, or have been interrupted.
    """

    def __init__(
        self, settings: Settings, registry: ModelRegistry, database: Database, runs: RunHub, library: Library
    ) -> None:
        self._setting = settings.model[:512]
        self._is_given = settings.source_of("model") == "option"  # for this start, whatever was chosen
        self._registry = registry
        self._database = database
        self._runs = runs
        self._library = library
        self._lock = asyncio.Lock()
        self._remembering = asyncio.Lock()  # two who say something about one model make one row
        self._leaving: dict[str, tuple[TextModel, asyncio.Event]] = {}  # the event: no longer to be waited for
        self._problems: dict[str, str] = {}  # why one that was to be loaded is not
        self._returning: str | None = None  # the default of before, once it can be again and unless another is chosen
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Heeds what is remembered: parameters at once; other models after the default, in the background."""
        async with self._database.session() as session:
            rows = (await session.scalars(select(ServedModel).order_by(ServedModel.id))).all()
        self._registry.parameters = {row.name: row.parameters for row in rows if row.parameters}
        chosen = (row.name for row in rows if row.chosen_over == self._setting)
        default = None if self._is_given else next(chosen, None)
        wanted = [row.name for row in rows if row.is_loaded or row.name == default]
        self._returning = default
        self._spawn(self._restore(sorted(wanted, key=lambda name: name != default)))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        leaving = [model for model, _ in self._leaving.values()]
        self._leaving.clear()
        await asyncio.gather(*(_close(model) for model in leaving))

    async def load(self, name: str) -> None:
        """Returns when its worker has been started, which is not ready yet. Nothing to do for one that is there.

        Raises `ApiError`: 404 for one that is not on this machine, 409 for one that cannot be loaded, or not now.
        """
        async with self._lock:
            if name not in self._registry:
                await self._open(name)
            await self._remember(name, is_loaded=True)

    async def restart(self, name: str, when: str | None) -> None:
        """In a new process, from the files as they are now. when: as of `unload`, without "finished".

        Raises `ApiError` as `load` and `unload` do, with the model as it was.
        """
        async with self._lock:
            old = self._find(name)
            if when is None:
                self._check_idle(old)
            await self._open(name, instead_of=old, only_idle=when is None)

    async def unload(self, name: str, when: str | None) -> None:
        """when: "finished" after the answers that are being written, "now", or None only if there are none.

        One that could not be restored is no longer to be. Raises `ApiError`: 404 for one that is neither served nor was
        to be, 409 for the default, and while answers are written.
        """
        if when == "now" and name in self._leaving:
            self._leaving[name][1].set()
            return
        async with self._lock:
            if name in self._problems and name not in self._registry:
                await self._forget(name)
                return
            model = self._find(name)
            if model is self._registry.default:
                raise ApiError(409, f"{name} is the default model; make another the default first", code="is_default")
            if when is None:
                self._check_idle(model)
            self._registry.take(name)
            self._leaving[name] = model, (event := asyncio.Event())
            if when == "now":
                event.set()
            self._spawn(self._leave(model, event))
            await self._remember(name, is_loaded=False)

    async def make_default(self, name: str) -> None:
        """Raises `ApiError` 404 for one that is not served, 409 for one that cannot answer."""
        async with self._lock:
            model = self._find(name)
            if model.engine.state is not EngineState.READY:
                raise ApiError(409, f"{name} cannot answer: {model.engine.reason}", code="model_not_ready")
            async with self._remembering, self._database.session() as session:
                others = update(ServedModel).where(ServedModel.name != name).values(chosen_over=None)
                await session.execute(others.execution_options(synchronize_session=False))
                await _write(session, self._registry.default.name, is_loaded=True)
                await _write(session, name, is_loaded=True, chosen_over=self._setting)
            self._registry.make_default(name)
            self._returning = None

    async def set_parameters(self, name: str, parameters: Parameters) -> None:
        """Raises `ApiError` 404 for one that is neither served nor on this machine."""
        if name not in self._registry and name not in await asyncio.to_thread(self._library.models):
            raise _not_here(name)
        values = parameters.model_dump(exclude_none=True)
        await self._remember(name, parameters=values)
        self._registry.parameters[name] = values

    async def view(self) -> ServedModelsView:
        reckoning = await self._reckon()
        served = [model.name for model in self._registry]
        names = [*served, *self._leaving, *sorted({*reckoning.here, *self._problems})]
        items = [self._view_one(name, reckoning) for name in dict.fromkeys(names)]
        return ServedModelsView(items=items, free_bytes=max(reckoning.free, 0))

    # Loading

    async def _open(self, name: str, instead_of: TextModel | None = None, *, only_idle: bool = False) -> None:
        """instead_of: one that is closed as soon as nothing speaks against the new one any more; with only_idle, its
        answers do."""
        if name in self._leaving:
            raise ApiError(409, f"{name} is being unloaded; wait until it is gone", code="unloading")
        reckoning = await self._reckon(without=instead_of)
        found, need = reckoning.here.get(name), reckoning.needs.get(name)
        if found is None:
            raise _not_here(name)
        if isinstance(found, DamagedModel):
            raise ApiError(409, f"{name} cannot be loaded: {found.reason}", code="model_damaged")
        try:
            if isinstance(need, FiresideError):
                raise need
            assert need is not None  # of one that is not damaged
            cache = self._cache_for(name, need, reckoning.free)
            model = await asyncio.to_thread(self._library.open, found, cache)
        except FiresideError as error:
            raise ApiError(409, f"{name} cannot be loaded: {error}", code="model_damaged") from error
        if instead_of is not None:
            try:
                if only_idle:  # some may have begun while the files were read
                    self._check_idle(instead_of)
            except ApiError:
                await _close(model)
                raise
            self._runs.interrupt(name)
            await _close(instead_of)
        self._registry.put(model)
        self._problems.pop(name, None)
        await model.engine.start()

    def _cache_for(self, name: str, need: MemoryNeed, free: int) -> int | None:
        """Bytes; None where its worker knows better. Raises `ApiError` 409 if there is not enough memory."""
        if any(model.engine.info is not None and model.engine.info.device == "cuda" for model in self._registry):
            return None
        if need.least > free:
            raise ApiError(
                409,
                f"{name} needs about {_gigabytes(need.least)} of memory, and {_gigabytes(max(free, 0))} are free: "
                "unload another model, set kv_cache_memory for smaller caches, or choose a model with fewer or "
                "smaller weights",
                code="not_enough_memory",
            )
        return need.cache(free)

    async def _reckon(self, without: TextModel | None = None) -> Reckoning:
        loaded = [*self._registry, *(model for model, _ in self._leaving.values())]
        return await asyncio.to_thread(reckon, self._library, loaded, without=without)

    # Unloading

    async def _leave(self, model: TextModel, at_once: asyncio.Event) -> None:
        while self._answering(model) and not at_once.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(at_once.wait(), _LOOK_SECONDS)
        self._runs.interrupt(model.name)
        await _close(model)
        self._leaving.pop(model.name, None)

    def _check_idle(self, model: TextModel) -> None:
        if count := self._answering(model):
            raise ApiError(409, f"{count} answers are being written with {model.name}", code="answers_running")

    def _answering(self, model: TextModel) -> int:
        """Runs count from their first moment, in which they are not with the model yet."""
        return max(model.answering, self._runs.writing_with(model.name))

    # What is remembered

    async def _restore(self, names: list[str]) -> None:
        with suppress(EngineUnavailable):  # the default comes first: to be ready, and to take the memory it needs
            await self._registry.default.engine.wait_ready()
        for name in names:
            try:
                async with self._lock:
                    if name not in self._registry:
                        await self._open(name)
                    if name == self._returning:
                        self._registry.make_default(name)
                with suppress(EngineUnavailable):
                    await self._registry.get(name).engine.wait_ready()
            except ApiError as error:
                logger.warning("%s was loaded before and is not now: %s", name, error.detail)
                self._problems[name] = error.detail

    async def _remember(self, name: str, **values: Any) -> None:
        async with self._remembering, self._database.session() as session:
            await _write(session, name, **values)

    async def _forget(self, name: str) -> None:
        """That it is to be loaded; all about it if its files are gone."""
        if name in await asyncio.to_thread(self._library.models):
            await self._remember(name, is_loaded=False, chosen_over=None)
        else:
            async with self._remembering, self._database.session() as session:
                await session.execute(delete(ServedModel).where(ServedModel.name == name))
            self._registry.parameters.pop(name, None)
        self._problems.pop(name, None)

    # What is told

    def _view_one(self, name: str, reckoning: Reckoning) -> ServedModelView:
        found, need = reckoning.here.get(name), reckoning.needs.get(name)
        view = ServedModelView(name=name, state="available", parameters=Parameters())
        with suppress(ValueError):  # of another version
            view.parameters = Parameters.model_validate(self._registry.parameters.get(name, {}))
        if isinstance(found, DamagedModel):
            view.state, view.reason = "damaged", found.reason
        elif found is not None:
            view.format, view.architecture = found.format, str(found.config.architecture)
            view.weight_type, view.size_bytes, view.license = found.weight_type, found.size_bytes, found.license
            view.base = found.base.name if found.base else None
            view.context_length = found.config.max_position_embeddings
            view.needs_bytes = need.least if isinstance(need, MemoryNeed) else None
        if name in self._problems:
            view.state, view.reason = "failed", self._problems[name]
        served = self._registry.get(name) if name in self._registry else None
        if name in self._leaving:
            served = self._leaving[name][0]
        if served is not None:
            info = served.engine.info
            view.is_served = True
            view.state = "unloading" if name in self._leaving else served.engine.state.value
            view.reason, view.answering = served.engine.reason, self._answering(served)
            view.is_default = served is self._registry.default
            view.context_length = served.context_length
            if info is not None:
                view.device, view.dtype, view.cache_tokens = info.device, info.dtype, info.num_blocks * info.block_size
        return view

    def _find(self, name: str) -> TextModel:
        if name not in self._registry:
            raise _not_here(name)
        return self._registry.get(name)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _write(session: AsyncSession, name: str, **values: Any) -> None:
    row = await session.scalar(select(ServedModel).where(ServedModel.name == name))
    if row is None:
        session.add(row := ServedModel(name=name))
    for field, value in values.items():
        setattr(row, field, value)


async def _close(model: TextModel) -> None:
    model.close()
    await model.engine.close()


def _not_here(name: str) -> ApiError:
    return ApiError(404, f"there is no model {name[:100]!r} here", code="model_not_found")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
