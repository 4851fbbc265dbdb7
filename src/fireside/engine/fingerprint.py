"""What decides the bits of keys and values: under one fingerprint, the same tokens give the same ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import fireside
from fireside.engine.runner import Runner
from fireside.models.config import ModelConfig

_SAMPLES = 64  # of a file, evenly spaced, its beginning and its end among them
_SAMPLE_BYTES = 1 << 16
_CODE = ("engine", "kernels", "models")  # whose Python may change a bit as well as the compiled kernels


def model_fingerprint(path: Path) -> str:
    """Of the files that hold a model's config and weights. Take it before they are opened: of files that are replaced
    between the two, the numbers then go under a fingerprint that nothing will have again.

    Reading them whole would cost a large model seconds at every start. So this trusts the file system to note every
    change (`st_ctime` cannot be set back, as a copy sets back `st_mtime`), and reads samples where it may not.
    """
    digest = hashlib.sha256()
    files = [path] if path.is_file() else [path / "config.json", *path.glob("*.safetensors"), *path.glob("*.gguf")]
    for file in sorted(file for file in files if file.is_file()):
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
        last = max(0, stat.st_size - _SAMPLE_BYTES)
        with file.open("rb") as opened:
            for offset in sorted({last * number // (_SAMPLES - 1) for number in range(_SAMPLES)}):
                opened.seek(offset)
                digest.update(opened.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def fingerprint(model: str, config: ModelConfig, runner: Runner) -> str:
    """Of a model, by what `model_fingerprint` gave for it, in this runner, on this machine, by this code."""
    facts = [
        model, repr(config), runner.backend, runner.device, runner.dtype, runner.numerics, runner.block_size,
        [(name, str(t.dtype), t.shape[0], t.shape[2:]) for name, t in sorted(runner.cache_tensors.items())], _code(),
    ]  # fmt: skip
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _code() -> str:
    """Of our own sources: nobody has to remember which change needs a new number."""
    digest = hashlib.sha256(fireside.__version__.encode())
    package = Path(fireside.__file__).parent
    for file in sorted(file for room in _CODE for file in (package / room).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
