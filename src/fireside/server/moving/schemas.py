"""What the routes of imports give."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from fireside.server.moving.parsed import Reason

ImportStatus = Literal["running", "complete", "cancelled", "interrupted", "failed"]


class SkippedOut(BaseModel):
    """Something that is not, or not quite, as it was where it came from."""

    reason: Reason
    where: str = Field(description="The file; empty for the whole upload.")
    title: str = Field(description="The conversation; empty where it is about the file.")
    count: int
    detail: str


class ImportReport(BaseModel):
    """conversations: added, or with messages added; unchanged: those that were there already, with all they have."""

    conversations: int = 0
    changed: int = 0
    unchanged: int = 0
    messages: int = 0
    skipped_count: int = Field(default=0, description="May be more than are listed.")
    skipped: list[SkippedOut] = []
    problem: str | None = Field(default=None, description="Why it ended before its end.")


class ImportOut(BaseModel):
    id: str
    created_at: datetime
    name: str
    status: ImportStatus
    finished_at: datetime | None
    progress: float = Field(description="From 0 to 1.")
    report: ImportReport
