"""Lists in pages: `{"items": [...], "next_cursor": ...}`, by time and id, so that nothing is shown twice or missed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy import Select, tuple_

from fireside.server.db.base import Identified
from fireside.server.errors import invalid

T = TypeVar("T")
Place = tuple[datetime, str]

MAX_LIMIT = 100

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most items of one page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")]


class Page(BaseModel, Generic[T]):
    items: list[T]
    next_cursor: str | None = Field(description="Null on the last page.")


def page_of(items: Sequence[T], limit: int, place: Callable[[T], Place]) -> Page[T]:
    """items: one more than `limit`, if there is one. place: what they are ordered by."""
    shown = list(items[:limit])
    return Page(items=shown, next_cursor=_cursor(place(shown[-1])) if len(items) > limit else None)


def read_cursor(cursor: str | None) -> Place | None:
    """Raises `ApiError` 400."""
    if cursor is None:
        return None
    try:
        time, _, row_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        place = datetime.fromisoformat(time), row_id
        if place[0].tzinfo is None:
            raise ValueError("no zone")
    except (ValueError, binascii.Error, OverflowError):
        raise invalid("cursor", "is not one that this server gave", "invalid_value") from None
    return place


def older_than(statement: Select[Any], table: type[Identified], before: Place | None, limit: int) -> Select[Any]:
    """The newest rows of `statement`, from behind `before`."""
    if before is not None:
        statement = statement.where(tuple_(table.created_at, table.id) < tuple_(*before))
    return statement.order_by(table.created_at.desc(), table.id.desc()).limit(limit)


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place[0].isoformat()} {place[1]}".encode()).decode()
