"""Which models this server answers with, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from fireside.assistant.text_model import TextModel
from fireside.engine.messages import WorkerConfig
from fireside.engine.supervisor import WorkerClient
from fireside.models.local import DEFAULT_ALIAS, resolve_model
from fireside.server.errors import ApiError
from fireside.settings import Settings


class ModelRegistry:
    """The models that are served. The first is the default.

    `map_unknown` lets any other name mean the default model too, for clients with a name built in.
    """

    def __init__(self, models: Iterable[TextModel], *, map_unknown: bool = False) -> None:
        self._models = {model.name: model for model in models}
        if not self._models:
            raise ValueError("a registry needs at least one model")
        self.default = next(iter(self._models.values()))
        self.map_unknown = map_unknown
        self.created = int(time.time())  # what `GET /v1/models` says; a file's date would change with every copy

    def __iter__(self) -> Iterator[TextModel]:
        return iter(self._models.values())

    def knows(self, name: str) -> bool:
        return name == DEFAULT_ALIAS or name in self._models

    def get(self, name: str) -> TextModel:
        """Raises `ApiError` 404 `model_not_found`."""
        if name == DEFAULT_ALIAS:
            return self.default
        if model := self._models.get(name):
            return model
        if self.map_unknown:
            return self.default
        raise ApiError(
            404,
            f"the model {name!r} does not exist; this server has {', '.join(self._models)} (and {DEFAULT_ALIAS!r})",
            param="model",
            code="model_not_found",
        )

    async def start(self) -> None:
        await asyncio.gather(*(model.engine.start() for model in self._models.values()))

    async def close(self) -> None:
        for model in self._models.values():
            model.close()
        await asyncio.gather(*(model.engine.close() for model in self._models.values()))


def open_models(settings: Settings) -> ModelRegistry:
    """The models that `settings` name, each behind a worker process of its own that has not been started.

    Raises `ModelError` if one of them is missing or cannot be used, `TemplateError` if its chat template cannot.
    """
    local = resolve_model(DEFAULT_ALIAS, settings)
    draft = None if settings.draft_model is None else resolve_model(settings.draft_model, settings)
    config = WorkerConfig(
        model=str(local.path),
        name=local.name,
        device=settings.device,
        dtype=settings.dtype,
        max_context=settings.max_context,
        kv_cache_memory=settings.kv_cache_memory,
        max_batch_tokens=settings.max_batch_tokens,
        max_running=settings.max_running,
        max_waiting=settings.max_waiting,
        threads=settings.threads,
        speculative_tokens=settings.speculative_tokens,
        speculative_recent=settings.speculative_recent,
        draft_model=None if draft is None else str(draft.path),
        grammar_timeout=settings.grammar_timeout,
    )
    engine = WorkerClient(
        config, heartbeat_timeout=settings.heartbeat_timeout, log_path=settings.logs_dir / f"{local.name}.log"
    )
    model = TextModel.from_local(
        local, engine, max_context=settings.max_context, grammar_timeout=settings.grammar_timeout
    )
    return ModelRegistry([model], map_unknown=settings.map_unknown_models)
