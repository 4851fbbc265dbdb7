"""Which models this server answers with, as administrators chose."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from fireside.server.db.base import Base, Identified


class ServedModel(Identified, Base):
    """One that an administrator has said something about."""

    __tablename__ = "served_models"

    name: Mapped[str] = mapped_column(String(255), unique=True)
    is_loaded: Mapped[bool] = mapped_column(default=False)
    """Whether it is to be there after a restart. The default always is."""
    chosen_over: Mapped[str | None] = mapped_column(String(512))
    """Of the default: what the setting `model` said when it was chosen. Once that says something else, it is heeded
    again. None: not the default."""
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """How the app's answers are made where neither person nor conversation says."""
