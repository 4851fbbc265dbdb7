"""What an error of the database means for who tries again."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

_PASSING_CODES = frozenset(  # of SQLite: locked, no room, no memory, a disk that does not answer
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
    }
)  # fmt: skip
_PASSING_STATES = ("08", "40", "53", "57", "58")  # of PostgreSQL: connections, conflicts, room, an operator, the system
_LASTING_STATES = ("22", "23", "54")  # values that are refused, constraints, limits
_FOREIGN_KEY = "23503"


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed shortly: a full disk, a lost connection, a crowd that takes too long."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, (PoolTimeoutError, ConnectionError))
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _PASSING_CODES
    state = _state(error)
    return state.startswith(_PASSING_STATES) if state else isinstance(error, OperationalError)


def is_gone(error: Exception) -> bool:
    """Whether what was to be changed, or what a new row was to belong to, has been deleted in the meantime."""
    if isinstance(error, IntegrityError):
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY or _state(error) == _FOREIGN_KEY
    return isinstance(error, StaleDataError)


def is_for_good(error: Exception) -> bool:
    """Whether the same values would be refused for ever."""
    if isinstance(error, DBAPIError):
        return isinstance(error, (IntegrityError, DataError)) or _state(error).startswith(_LASTING_STATES)
    return isinstance(error, (StatementError, ValueError, TypeError, OverflowError))


def _state(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")
