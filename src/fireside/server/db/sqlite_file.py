"""SQLite's file and its connections: for their owner's eyes only, and set up to last."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# Pages of the write-ahead log after which a commit waits until they are in the database and on the disk. SQLite's 1,000
# would let every hundredth of the commits that streams make wait; 16 MiB are read again within a moment after a crash.
_CHECKPOINT = "wal_autocheckpoint=4000"

logger = logging.getLogger(__name__)


def own_file(path: Path) -> None:
    """For its owner's eyes only, before there is anything in it; what SQLite puts beside it takes the same mode.

    Files that are there and that others may read are closed to them: the database, its log, its backups. A file that is
    there already is never opened: closing it would drop the locks that SQLite's own connections in this process have on
    it, and another process could then delete the log that they write to
    (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        backups = path.parent / "backups"
        for found in (*(path.with_name(path.name + end) for end in ("", "-wal", "-shm")), *backups.glob("*.db")):
            _close_to_others(found, 0o600)
        _close_to_others(backups, 0o700)


def _close_to_others(path: Path, mode: int) -> None:
    try:
        if path.stat().st_mode & 0o077:
            path.chmod(mode)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("others may be able to read %s, and that cannot be changed: %s", path, error.strerror)


def size_of(path: Path) -> int | None:
    """With the log, in which what was written last is until it is moved."""
    with suppress(OSError):
        log = path.with_name(f"{path.name}-wal")
        return path.stat().st_size + (log.stat().st_size if log.exists() else 0)
    return None


def prepare(connection: Any, _: object) -> None:
    """SQLAlchemy's listener to \"connect\"."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=5000")
    deadline = time.monotonic() + 5
    while _journal_mode(cursor) != "wal":
        # A file becomes WAL once and for all. Beside another connection that may fail at once, whatever the timeout is.
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON", _CHECKPOINT):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _journal_mode(cursor: Any) -> str:
    cursor.execute("PRAGMA journal_mode")
    mode: str = cursor.fetchone()[0]
    return mode
