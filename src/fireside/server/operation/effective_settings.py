"""The settings as they are heeded, and where each comes from. Secrets are counted, not told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from fireside.server.operation.schemas import SettingsView, SettingView
from fireside.settings import FILE_NAME, Settings


def effective_settings(settings: Settings, database: str) -> SettingsView:
    """database: where it is, without a password."""
    items = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        is_secret = name in ("api_keys", "database_url")
        if name == "api_keys":
            shown = str(len(value)) if value else None
        elif name == "database_url":
            shown = database
        else:
            shown = _written(value)
        items.append(
            SettingView(
                name=name,
                value=shown,
                is_secret=is_secret and isinstance(value, SecretStr | tuple),
                description=field.description or "",
                source=settings.source_of(name),
            )
        )
    return SettingsView(items=items, file=str(settings.home / FILE_NAME))


def _written(value: Any) -> str | None:
    if value is None:
        return None
    return str(value) if isinstance(value, str | Path) else json.dumps(value)
