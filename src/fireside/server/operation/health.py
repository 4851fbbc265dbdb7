"""How the server is."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from fireside import __version__
from fireside.assistant.text_model import TextModel
from fireside.engine.resources import available_memory
from fireside.server.deps import Context
from fireside.server.operation.schemas import HealthView, ModelHealth

_STARTED = time.monotonic()


async def health(context: Context) -> HealthView:
    return HealthView(
        version=__version__,
        uptime_seconds=time.monotonic() - _STARTED,
        database=context.database.where,
        database_bytes=await context.database.size(),
        disk_free_bytes=await asyncio.to_thread(_disk_free, context.settings.home),
        memory_bytes=_memory(os.getpid()),
        free_memory_bytes=available_memory(),
        models=[_of(model, is_default=model is context.models.default) for model in context.models],
    )


def _of(model: TextModel, *, is_default: bool) -> ModelHealth:
    engine, stats = model.engine, model.engine.stats
    pid: int | None = getattr(engine, "worker_pid", None)  # an engine may have no process of its own
    return ModelHealth(
        name=model.name,
        state=engine.state,
        reason=engine.reason or None,
        is_default=is_default,
        memory_bytes=None if pid is None else _memory(pid),
        running=stats.running,
        waiting=stats.waiting,
        blocks_total=stats.blocks_total,
        blocks_free=stats.blocks_free,
        blocks_cached=stats.blocks_cached,
        prompt_tokens=stats.prompt_tokens,
        generated_tokens=stats.generated_tokens,
    )


def _memory(pid: int) -> int | None:
    """Resident; None where /proc does not say."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def _disk_free(folder: Path) -> int | None:
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None
