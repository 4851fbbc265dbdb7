"""What models are on this machine, what each of them needs, and how much memory is free for more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fireside.assistant.text_model import TextModel
from fireside.engine.client import EngineState
from fireside.engine.memory import MemoryNeed
from fireside.errors import FiresideError
from fireside.models.local import DamagedModel, LocalModel
from fireside.server.serving.library import Library


@dataclass(frozen=True)
class Reckoning:
    """here, needs: by name. needs: why not, where a model's files do not say.

    free: bytes that no loaded model will come to need; below 0 where they have been promised more than there is.
    """

    here: Mapping[str, LocalModel | DamagedModel]
    needs: Mapping[str, MemoryNeed | FiresideError]
    free: int


def reckon(library: Library, loaded: Sequence[TextModel], *, without: TextModel | None = None) -> Reckoning:
    """Reads files: to be called in a thread. without: one of `loaded`, as if it had been closed."""
    here = library.models()
    like = next((model.engine.info for model in loaded if model.engine.info), None)
    needs: dict[str, MemoryNeed | FiresideError] = {}
    for name, found in here.items():
        if isinstance(found, LocalModel):
            try:
                needs[name] = library.need(found, like)
            except FiresideError as error:
                needs[name] = error
    free = library.free_memory()
    for model in loaded:
        need = needs.get(model.name)
        if isinstance(need, MemoryNeed) and model.engine.state not in (EngineState.FAILED, EngineState.CLOSED):
            free += _taken(model, need) if model is without else -_still_to_come(model, need, free)
    return Reckoning(here, needs, free)


def _still_to_come(model: TextModel, need: MemoryNeed, free: int) -> int:
    """Bytes that a loaded model has not touched yet: memory is only taken once it is used."""
    info, stats = model.engine.info, model.engine.stats
    if info is None:
        return need.weights + need.cache(free)
    blocks = stats.blocks_free if stats.blocks_total else info.num_blocks
    return blocks * info.block_size * need.per_token


def _taken(model: TextModel, need: MemoryNeed) -> int:
    """Bytes that are free again once it is closed; nothing where its process is not whole."""
    info, stats = model.engine.info, model.engine.stats
    if info is None or model.engine.state is not EngineState.READY:
        return 0
    blocks = stats.blocks_total - stats.blocks_free
    return need.weights + blocks * info.block_size * need.per_token
