"""What the sources of models share: how they report, fail, and check what they wrote."""

from __future__ import annotations

import errno
import hashlib
import shutil
from pathlib import Path

from fireside.errors import FiresideError

CONNECT_TIMEOUT = 5.0  # seconds a source may take to answer at all before the next one is tried
CHUNK_BYTES = 1 << 20
_DISK_MARGIN = 64 << 20  # bytes that stay free: a full disk breaks more than the download

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class SourceFailed(FiresideError):
    """One source could not give the model; another may."""


class StorageError(FiresideError):
    """This machine cannot store the model, wherever it comes from."""


class PullObserver:
    """Told what a pull does. The base class keeps it to itself."""

    def message(self, text: str) -> None:
        """One line for a person: a source is tried, or failed and why."""

    def progress(self, done: int, total: int | None) -> None:
        """Bytes of the present download that are here, and of all of it where that is known."""


def storage_error(error: OSError, path: Path) -> StorageError:
    """`error` in one sentence that says where and what to do."""
    if error.errno in _FULL:
        return StorageError(f"there is no space left for {path}: free some, or set FIRESIDE_HOME to another disk")
    if error.errno in _FORBIDDEN:
        return StorageError(f"no permission to write {path}: set FIRESIDE_HOME to a folder of your own")
    return StorageError(f"{path} cannot be written: {error.strerror or error}")


def require_space(folder: Path, needed: int) -> None:
    """Raises `StorageError` unless the disk of `folder` has `needed` bytes to spare."""
    free = shutil.disk_usage(folder).free
    if needed + _DISK_MARGIN > free:
        raise StorageError(
            f"there is no space for the model in {folder}: it needs {format_bytes(needed + _DISK_MARGIN)} and "
            f"{format_bytes(free)} are free; free some, or set FIRESIDE_HOME to another disk"
        )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_sha1_of(path: Path) -> str:
    """The id git gives the file's content (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raises `SourceFailed` and removes the file if it is not the one that was asked for."""
    actual = sha256_of(path)
    if actual != expected:
        path.unlink()
        raise SourceFailed(f"{path.name} has SHA-256 {actual}, expected {expected}: it is damaged or another file")


def move_into_place(source: Path, target: Path, aside: Path) -> None:
    """Renames the finished folder `source` to `target`; what stood there goes to `aside`. All on one disk."""
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        target.replace(aside)
    source.replace(target)


def format_bytes(count: float) -> str:
    """ "98.4 MB": decimal units, as disks and downloads are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
