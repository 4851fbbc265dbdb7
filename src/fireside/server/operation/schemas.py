"""What the routes for those who run the server give."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class ModelHealth(BaseModel):
    """The engine's own counters are of its last heartbeat, and grow from its worker's start."""

    name: str
    state: str
    reason: str | None
    is_default: bool
    memory_bytes: int | None = Field(description="Resident, of its worker.")
    running: int
    waiting: int
    blocks_total: int = Field(description="Of its cache.")
    blocks_free: int
    blocks_cached: int = Field(description="That hold a reusable prefix and can be evicted.")
    prompt_tokens: int
    generated_tokens: int


class HealthView(BaseModel):
    version: str
    uptime_seconds: float
    database: str = Field(description="Where it is, without a password.")
    database_bytes: int | None
    disk_free_bytes: int | None = Field(description="Where the home folder is.")
    memory_bytes: int | None = Field(description="Resident, of the server's process, without the engines.")
    free_memory_bytes: int
    models: list[ModelHealth]


class SettingView(BaseModel):
    name: str
    value: str | None = Field(description="As it would be written in the file; null where there is none.")
    is_secret: bool = Field(description="The value is not told; it says only what there is.")
    description: str
    source: str = Field(description='"default", "option", "environment", or the path of a file.')


class SettingsView(BaseModel):
    items: list[SettingView]
    file: str = Field(description="Where they can be changed for good.")


class BackupView(BaseModel):
    name: str
    created_at: datetime
    size_bytes: int


class BackupsView(BaseModel):
    items: list[BackupView] = Field(description="The newest first.")
    is_possible: bool = Field(description="PostgreSQL is backed up by its own tools.")
    kept: int = Field(description="How many; with one more, the oldest goes.")
    folder: str | None
    database: str
