"""What a model is called, and what its folder keeps of where it came from. Free of torch."""

from __future__ import annotations

import re

RECORD_FILE = "fireside.json"  # where `pull` and training note where a model came from, its licence, how to sample it


def is_model_name(text: str) -> bool:
    """Whether `text` can name a folder below `models`: no separators, no leading dot, nothing that climbs out."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text) is not None and not text.lower().endswith(".gguf")
