"""Copies of an SQLite database, in `backups` beside it."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

KEPT_BACKUPS = 5
_DEAD_SECONDS = 3600.0  # after which one that is not whole, and was not written to since, is nobody's any more


def folder_of(database: Path) -> Path:
    return database.parent / "backups"


def make(database: Path) -> Path:
    """Raises `OSError` or `sqlite3.Error`; what is there is whole then as well."""
    folder = folder_of(database)
    folder.mkdir(mode=0o700, exist_ok=True)
    for left in folder.glob(f"{database.stem}-*.partial"):  # by a process that was killed
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _DEAD_SECONDS:
                left.unlink()
    target = folder / f"{database.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db"
    partial = target.with_suffix(".partial")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # VACUUM takes an empty file
    try:
        connection = sqlite3.connect(database)
        try:
            connection.execute("VACUUM INTO ?", (str(partial),))
        finally:
            connection.close()
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    for old in sorted(folder.glob(f"{database.stem}-*.db"))[:-KEPT_BACKUPS]:
        with suppress(OSError):
            old.unlink()
    return target


def found(database: Path) -> list[tuple[Path, os.stat_result]]:
    """Those of `database` that are there, the newest first."""
    told = []
    for path in sorted(folder_of(database).glob(f"{database.stem}-*.db"), reverse=True):
        with suppress(OSError):  # deleted a moment ago
            told.append((path, path.stat()))
    return told
