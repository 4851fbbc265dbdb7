"""What decides the bits of keys and values: under one fingerprint, the same tokens give the same ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import fireside
from fireside.engine.runner import Runner
from fireside.models.adapter import is_adapter, open_base
from fireside.models.config import ModelConfig
from fireside.models.digest import model_files, samples

_CODE = ("engine", "kernels", "models")  # whose Python may change a bit as well as the compiled kernels


def model_fingerprint(path: Path, models_dir: Path | None = None) -> str:
    """Of the files that hold a model's config and weights, an adapter's base included (found as `open_base` does).
    Take it before they are opened: of files that are replaced between the two, the numbers then go under a fingerprint
    that nothing will have again.

    Reading them whole would cost a large model seconds at every start. So this trusts the file system to note every
    change (`st_ctime` cannot be set back, as a copy sets back `st_mtime`), and reads samples where it may not.
    """
    digest = hashlib.sha256()
    files = model_files(path)
    if is_adapter(path):
        files += model_files(open_base(path, models_dir)[1])
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
        for sample in samples(file):
            digest.update(sample)
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
