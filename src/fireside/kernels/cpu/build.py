"""The native kernels' library: from the wheel where it brings one for this processor, else compiled at first use.

A library's name holds the hash of what it was made from and the hash of its own bytes. So one of other sources, of
another compiler or for another processor is never loaded, nor one that was cut short, which could end the process.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fireside.folders import others_can_write
from fireside.kernels.cpu.variants import Variant, processor_features, runnable

SOURCES = Path(__file__).parent
PREBUILT = SOURCES / "prebuilt"  # only in wheels: see hatch_build.py
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", "-pthread")
# How compilers spell "for this processor", until one is accepted: clang on ARM long knew the second only.
TUNINGS = (("-march=native",), ("-mcpu=native",), ())
# Of what is run elsewhere than it was compiled: no names but the kernels' own, for PyTorch brings C++ libraries too.
# It takes libstdc++ from the system, as PyTorch does; a static one would call for a newer glibc than we do.
PREBUILT_FLAGS = ("-s", f"-Wl,--version-script={SOURCES / 'exports.map'}")
COMPILE_SECONDS = 300
_KEEP_SECONDS = 30 * 24 * 3600  # a library that nobody used: of other sources, or of another compiler


class NativeUnavailable(Exception):
    """The native kernels cannot be had on this machine; the message says why and what would help."""


def prebuilt_library(folder: Path = PREBUILT) -> Path | None:
    """The best library of the wheel that this processor can run, if there is one and it is whole.

    It comes before a compiler: compiled for this very processor the kernels are no faster (docs/log.md), and later.
    """
    for variant in runnable(processor_features()) if folder.is_dir() else ():
        if library := _find(folder, _variant_name(variant)):
            return library
    return None


def build_variant(variant: Variant, folder: Path) -> Path:
    """A library for `prebuilt_library` to find, compiled unless `folder` has it. Raises `NativeUnavailable`."""
    name, tunings = _variant_name(variant), ((*variant.flags, *PREBUILT_FLAGS),)
    return _find(folder, name) or _compile(find_compiler(), tunings, folder, name)


def find_compiler() -> str:
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise NativeUnavailable("there is no C++ compiler (install g++ or clang, or set CXX)")
    return compiler


def build_library(cache: Path | None = None) -> Path:
    """The kernels compiled for this processor, compiling them if need be. Safe when several processes call it at once.

    `cache`: where to keep the library; by default `$XDG_CACHE_HOME/fireside/kernels`.
    """
    compiler = find_compiler()
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fireside" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if others_can_write(folder):  # a library that another user could replace would run as us
            raise NativeUnavailable(f"the cache folder {folder} can be written by other users (chmod 700 it)")
        _remove_unused(folder, ".building-*", len(TUNINGS) * COMPILE_SECONDS)  # of those who were killed
        name = f"decoder-{_hash(_sources(), _run(compiler, '--version').stdout, compiler, _processor())}"
        if library := _find(folder, name):
            return library
        library = _compile(compiler, TUNINGS, folder, name)
        _remove_unused(folder, "decoder-*.so", _KEEP_SECONDS)
        return library
    except OSError as error:
        raise NativeUnavailable(
            f"the cache folder {folder} cannot be used: {error.strerror or error} (set XDG_CACHE_HOME to one that can)"
        ) from error


def _variant_name(variant: Variant) -> str:
    return f"decoder-{variant.name}-{_hash(_sources(), *variant.flags)}"


def _sources() -> str:
    files = sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")])
    return "\0".join([*FLAGS, *(file.read_text() for file in files)])


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:24]


def _named(name: str, content: bytes) -> str:
    return f"{name}-{_hash(content)}.so"


def _find(folder: Path, name: str) -> Path | None:
    """A whole library of that name in `folder`, if there is one."""
    for path in sorted(folder.glob(f"{name}-*.so")):
        try:
            content = path.read_bytes()
        except OSError:
            continue  # no better than none
        if path.name == _named(name, content):
            return path
    return None


def _remove_unused(folder: Path, pattern: str, seconds: float) -> None:
    """Files that have been neither read nor written for so long."""
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process may be faster
            info = path.stat()
            if time.time() - max(info.st_atime, info.st_mtime) > seconds:
                path.unlink()


def _processor() -> str:
    """What `-march=native` depends on: a home folder may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _compile(compiler: str, tunings: Sequence[tuple[str, ...]], folder: Path, name: str) -> Path:
    """Compiles with the first of `tunings` that the compiler knows. The library appears in `folder` whole or never."""
    handle, building = tempfile.mkstemp(suffix=".so", prefix=".building-", dir=folder)
    os.close(handle)
    try:
        for tuning in tunings:
            result = _run(compiler, *FLAGS, *tuning, "-o", building, str(SOURCES / "decoder.cpp"))
            if result.returncode == 0 or "=native" not in result.stderr:
                break
        if result.returncode != 0:
            first = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip()[:200])
            raise NativeUnavailable(f"{compiler} could not compile the kernels: {first}")
        return Path(building).replace(folder / _named(name, Path(building).read_bytes()))
    finally:
        Path(building).unlink(missing_ok=True)


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
