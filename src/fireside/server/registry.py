"""Which models this server answers with, by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Any

from fireside.assistant.text_model import TextModel
from fireside.engine.client import EngineClient
from fireside.engine.supervisor import WorkerClient
from fireside.models.local import DEFAULT_ALIAS, LocalModel, resolve_model
from fireside.server.errors import ApiError
from fireside.settings import Settings


class ModelRegistry:
    """The models that are served, which may change while requests run: a request holds the model that it got.

    The first is the default. `map_unknown` lets any other name mean the default model too, for clients with a name
    built in. parameters: by name, how the app's answers are made where neither person nor conversation says.
    """

    def __init__(self, models: Iterable[TextModel], *, map_unknown: bool = False) -> None:
        self._models = {model.name: model for model in models}
        if not self._models:
            raise ValueError("a registry needs at least one model")
        self._default = next(iter(self._models))
        self.map_unknown = map_unknown
        self.parameters: dict[str, dict[str, Any]] = {}
        self.created = int(time.time())  # what `GET /v1/models` says; a file's date would change with every copy

    @property
    def default(self) -> TextModel:
        return self._models[self._default]

    def put(self, model: TextModel) -> None:
        """From now on it answers to its name."""
        self._models[model.name] = model

    def take(self, name: str) -> TextModel:
        """From now on nobody gets it. Not for the default."""
        assert name != self._default
        return self._models.pop(name)

    def make_default(self, name: str) -> None:
        assert name in self._models
        self._default = name

    def __iter__(self) -> Iterator[TextModel]:
        """The default first, then as they came."""
        yield self.default
        yield from [model for name, model in self._models.items() if name != self._default]

    def __contains__(self, name: str) -> bool:
        return name in self._models

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
            f"the model {name[:100]!r} is not served here; this server has {', '.join(self._models)} "
            f"(and {DEFAULT_ALIAS!r})",
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
    return registry_of(local, WorkerClient.for_model(local, settings), settings)


def registry_of(local: LocalModel, engine: EngineClient, settings: Settings) -> ModelRegistry:
    """`local` alone, answered for by `engine`. Raises as `open_models` does."""
    model = TextModel.from_local(
        local, engine, max_context=settings.max_context, grammar_timeout=settings.grammar_timeout
    )
    return ModelRegistry([model], map_unknown=settings.map_unknown_models)
