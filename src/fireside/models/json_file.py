"""Small text files of a model's folder, read with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fireside.errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; an absent file is an empty one. Raises `ModelError`."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return value


def read_text(path: Path) -> str:
    """Raises `ModelError`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
