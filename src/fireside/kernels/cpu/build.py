"""Compiles the native kernels once per machine, with the system's own C++ compiler, into the cache folder.

The library's name is a hash of the sources, the flags, the compiler's version and the processor's features, so an
upgrade of any of them compiles anew and an old library is never loaded by mistake. Takes seconds, once.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", "-pthread")
# How compilers spell "for this processor", until one is accepted: clang on ARM long knew the second only.
TUNINGS = (("-march=native",), ("-mcpu=native",), ())
COMPILE_SECONDS = 300


class NativeUnavailable(Exception):
    """The native kernels cannot be had on this machine; the message says why and what would help."""


def build_library(cache: Path | None = None) -> Path:
    """The compiled kernels' path, compiling them first if need be. Safe when several processes call it at once.

    `cache`: where to keep the library; by default `$XDG_CACHE_HOME/fireside/kernels`.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise NativeUnavailable("there is no C++ compiler (install g++ or clang, or set CXX)")
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fireside" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _refuse_shared(folder)
        target = folder / f"decoder-{_fingerprint(compiler)}.so"
        if not target.exists():
            _compile(compiler, target)
    except OSError as error:
        raise NativeUnavailable(f"the cache folder {folder} cannot be used: {error.strerror or error}") from error
    return target


def _refuse_shared(folder: Path) -> None:
    """A library that another user could replace would run as us."""
    info = folder.stat()
    if info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NativeUnavailable(f"the cache folder {folder} can be written by other users (chmod 700 it)")


def _fingerprint(compiler: str) -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        digest.update(source.read_bytes())
    digest.update(f"{compiler} {_run(compiler, '--version').stdout}".encode())
    digest.update(_processor().encode())
    return digest.hexdigest()[:24]


def _processor() -> str:
    """What `-march=native` depends on: a home folder may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _compile(compiler: str, target: Path) -> None:
    handle, name = tempfile.mkstemp(suffix=".so", prefix=".building-", dir=target.parent)
    os.close(handle)
    building = Path(name)
    try:
        for tuning in TUNINGS:
            result = _run(compiler, *FLAGS, *tuning, "-o", str(building), str(SOURCES / "decoder.cpp"))
            if result.returncode == 0 or "=native" not in result.stderr:
                break
        if result.returncode != 0:
            first = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip()[:200])
            raise NativeUnavailable(f"{compiler} could not compile the kernels: {first}")
        building.replace(target)
    finally:
        building.unlink(missing_ok=True)


def _run(compiler: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - the system's or the user's own compiler, no shell
            [compiler, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NativeUnavailable(f"{compiler} took over {COMPILE_SECONDS} seconds") from error
    except OSError as error:
        raise NativeUnavailable(f"{compiler} cannot be run: {error.strerror or error}") from error
