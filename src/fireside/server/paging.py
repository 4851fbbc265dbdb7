"""Long lists, a page at a time: `{"items": [...], "next_cursor": ...}`, newest first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession

from fireside.server.db.base import ID_LENGTH, Identified
from fireside.server.errors import invalid

MAX_LIMIT = 100

Item = TypeVar("Item")
Row = TypeVar("Row", bound=Identified)

_ID = f"[0-9a-f]{{{ID_LENGTH}}}"

Id = Annotated[str, Field(pattern=f"^{_ID}$")]


class Page(BaseModel, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="Of the next page, for `cursor`; null on the last one.")


class PageRequest:
    """`?limit=` and `?cursor=`, as a dependency."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
    ) -> None:
        self.limit = limit
        self.cursor = cursor


Paging = Annotated[PageRequest, Depends()]


async def newest_first(
    session: AsyncSession, query: Select[Row], table: type[Row], page: PageRequest
) -> tuple[Sequence[Row], str | None]:
    """One page of `query`, by id, which is by time; and the cursor of the next.

    Raises `ApiError` 400 for a cursor that none of ours looks like.
    """
    if page.cursor is not None:
        if not re.fullmatch(_ID, page.cursor):
            raise invalid("cursor", "must be the next_cursor of the page before", "invalid_value")
        query = query.where(table.id < page.cursor)
    rows = (await session.scalars(query.order_by(table.id.desc()).limit(page.limit + 1))).all()
    return rows[: page.limit], rows[page.limit - 1].id if len(rows) > page.limit else None
