"""Which documents are held out."""

from __future__ import annotations

import hashlib

from fireside.data.config import DataConfig, SourceConfig
from fireside.data.manifest import Split


def split_of(config: DataConfig, source: SourceConfig, text: int) -> Split:
    """By a hash of the cleaned `text` (`text_hash`) and the split's name, so that a document stays where it is whatever
    comes beside it."""
    if source.use != "split":
        return source.use
    salted = f"{config.validation_name} {text}".encode()
    place = int.from_bytes(hashlib.blake2b(salted, digest_size=8).digest()) / (1 << 64)
    return "validation" if place < config.validation_fraction else "train"
