"""The default model that an administrator chose, read before there is a server: its engine is started first.

Without SQLAlchemy, whose import would keep the engine waiting.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from fireside.settings import Settings

# 512: what of the setting there is room for in the table
_QUERY = "SELECT name FROM served_models WHERE chosen_over = "


def remembered_default(settings: Settings) -> str | None:
    """Its name; None if nobody chose one since `model` was set, if it is given for this start, or no database says."""
    if settings.source_of("model") == "option":
        return None
    kind, _, where = settings.database.partition(":///")
    if kind == "sqlite":
        return _from_sqlite(Path(where.partition("?")[0]), settings.model[:512])
    try:
        return asyncio.run(_from_postgresql(settings.database, settings.model[:512]))
    except Exception:  # whatever is wrong with the database, opening it will say
        return None


def _from_sqlite(path: Path, setting: str) -> str | None:
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=5)) as database:
            row = database.execute(f"{_QUERY}?", (setting,)).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


async def _from_postgresql(url: str, setting: str) -> str | None:
    import asyncpg

    connection = await asyncpg.connect(url, timeout=10)
    try:
        name = await connection.fetchval(f"{_QUERY}$1", setting)
    finally:
        await connection.close()
    return None if name is None else str(name)
