"""Whether a model's files are still the same, without reading all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

_SAMPLES = 64  # of a file, evenly spaced, its beginning and its end among them
_SAMPLE_BYTES = 1 << 16


def model_files(path: Path) -> list[Path]:
    """Those that hold a model's config and weights."""
    if path.is_file():
        return [path]
    configs = [path / "config.json", path / "adapter_config.json"]
    return sorted(file for file in (*configs, *path.glob("*.safetensors"), *path.glob("*.gguf")) if file.is_file())


def samples(file: Path) -> Iterator[bytes]:
    """Of its content: 4 MiB at most, all of it if it is small."""
    last = max(0, file.stat().st_size - _SAMPLE_BYTES)
    with file.open("rb") as opened:
        for offset in sorted({last * number // (_SAMPLES - 1) for number in range(_SAMPLES)}):
            opened.seek(offset)
            yield opened.read(_SAMPLE_BYTES)


def content_digest(path: Path) -> str:
    """SHA-256 of sizes and samples of a model's files, whatever their names and times: a copy has the same."""
    digest = hashlib.sha256()
    for file in model_files(path):
        digest.update(f"{file.stat().st_size}\n".encode())
        for sample in samples(file):
            digest.update(sample)
    return digest.hexdigest()
