"""The models that are on this machine, and how one of them is opened beside others."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from fireside.assistant.text_model import TextModel
from fireside.engine.memory import MemoryNeed, memory_need
from fireside.engine.messages import EngineInfo
from fireside.engine.resources import available_memory
from fireside.engine.supervisor import WorkerClient
from fireside.errors import ModelError
from fireside.models.local import DEFAULT_ALIAS, DamagedModel, LocalModel, list_models, resolve_model
from fireside.settings import Settings


class Library:
    """Reads headers of files: what may take a while is to be called in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, LocalModel | DamagedModel] = {}
        self._needs: dict[tuple[str, str, str], MemoryNeed] = {}
        self._seen: object = None  # of what state of the folder `_known` and `_needs` tell
        self._looking = Lock()

    def models(self) -> dict[str, LocalModel | DamagedModel]:
        """By name: those in the home folder, and the one that the setting `model` names by its path."""
        with self._looking:
            seen = _state_of(self._settings.models_dir)
            if seen != self._seen:
                known = {model.name: model for model in list_models(self._settings.home)}
                try:
                    first = resolve_model(DEFAULT_ALIAS, self._settings)
                    known.setdefault(first.name, first)
                except ModelError:
                    pass  # another default was chosen since
                self._known, self._needs, self._seen = known, {}, seen
            return self._known

    def need(self, model: LocalModel, like: EngineInfo | None) -> MemoryNeed:
        """like: what an engine on this machine says of itself. Raises `ModelError`."""
        settings = self._settings
        dtype = "stored" if settings.dtype in ("auto", "quantized") else settings.dtype
        if dtype == "stored" and like is not None and like.backend == "torch":
            dtype = "float32"
        cache = settings.kv_cache_dtype
        if cache == "auto":
            cache = "float32" if dtype == "float32" else "bfloat16"
        key = (model.name, dtype, cache)
        if (need := self._needs.get(key)) is None:
            need = self._needs[key] = memory_need(
                model,
                dtype=dtype,
                cache_dtype=cache,
                max_context=settings.max_context,
                set_cache=settings.kv_cache_memory,
            )
        return need

    def free_memory(self) -> int:
        return available_memory()

    def open(self, model: LocalModel, cache: int | None) -> TextModel:
        """With an engine of its own, not started; cache: bytes for its keys and values, None: as it thinks fit.

        Raises `ModelError` or `TemplateError` for files that cannot be used.
        """
        own: dict[str, object] = {"kv_cache_memory": self._settings.kv_cache_memory or cache}
        if model.name != self._settings.model:
            own["draft_model"] = None  # which has the tokenizer of the model that the settings name
        settings = self._settings.model_copy(update=own)
        return TextModel.from_local(
            model,
            WorkerClient.for_model(model, settings),
            max_context=settings.max_context,
            grammar_timeout=settings.grammar_timeout,
        )


def _state_of(folder: Path) -> object:
    """Another one whenever a file was added to it, taken away or changed."""
    try:
        return sorted((str(path), path.stat().st_mtime_ns) for path in [*folder.glob("*"), *folder.glob("*/*")])
    except OSError:  # something is being moved just now
        return object()
