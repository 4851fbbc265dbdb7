"""Accounts and conversations."""

from __future__ import annotations

revision = "0001"
down_revision = None


def upgrade() -> None: ...
