"""Compiling the kernels: once, safely, and with a clear word where it cannot be done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fireside.kernels.cpu import build
from fireside.kernels.cpu.build import NativeUnavailable, build_library
from fireside.kernels.cpu.library import ABI, load_library
from tests.kernels.native import needs_compiler


def fake_compiler(folder: Path, script: str) -> Path:
    compiler = folder / "fake-c++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    return compiler


# Leaves a mark per compilation, and at its target (the argument after -o) something that is there.
COUNTING = """
case "$*" in
  *--version*) echo fake 1;;
  *) echo x >> "$0.count"; while [ "$1" != -o ]; do shift; done; echo > "$2";;
esac"""
# As clang on ARM: it knows its own processor under one name only.
PARTICULAR = """
case "$*" in
  *--version*) ;;
  *-march=native*) echo "error: the compiler does not support '-march=native'" >&2; exit 1;;
  *) echo "$*" > "$0.arguments"; while [ "$1" != -o ]; do shift; done; echo > "$2";;
esac"""
BUILD_AND_PRINT = """
import sys
import time
from pathlib import Path
from fireside.kernels.cpu.build import build_library
print(build_library(Path(sys.argv[1])))
"""


@needs_compiler
def test_the_real_compiler_builds_a_library_that_loads() -> None:
    load_library(build_library())  # from the user's cache: the other tests have paid for it
    assert load_library().fireside_abi() == ABI


def test_it_compiles_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = fake_compiler(tmp_path, COUNTING)
    monkeypatch.setenv("CXX", str(compiler))
    first = build_library(tmp_path / "cache")
    assert build_library(tmp_path / "cache") == first
    assert (tmp_path / "fake-c++.count").read_text() == "x\n"
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DOTHER"))
    assert build_library(tmp_path / "cache") != first


def test_a_library_that_was_cut_short_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure can leave one; to load it would end the process."""
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, COUNTING)))
    library = build_library(tmp_path / "cache")
    whole = library.read_bytes()
    library.write_bytes(whole[:-1])
    assert build_library(tmp_path / "cache").read_bytes() == whole
    assert (tmp_path / "fake-c++.count").read_text() == "x\nx\n"


def test_what_was_left_behind_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a library of a compilation that was killed, and libraries that nobody has used for a month."""
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, COUNTING)))
    cache = tmp_path / "cache"
    first = build_library(cache)
    hour, month = 3600, 31 * 24 * 3600
    ages = {
        ".building-killed.so": (hour, hour), ".building-now.so": (0, 0), "decoder-unused.so": (month, month),
        "decoder-used.so": (hour, month), "others.so": (month, month), first.name: (month, month),
    }  # fmt: skip
    now = time.time()
    for name, (accessed, modified) in ages.items():
        (cache / name).touch()
        os.utime(cache / name, (now - accessed, now - modified))
    assert build_library(cache) == first
    assert {path.name for path in cache.iterdir()} == ages.keys() - {".building-killed.so"}
    os.utime(first, (now - month, now - month))  # it has just been read
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DOTHER"))
    second = build_library(cache)
    assert {path.name for path in cache.iterdir()} == {
        ".building-now.so", "decoder-used.so", "others.so", second.name
    }  # fmt: skip


def test_several_processes_at_once_leave_one_whole_library(tmp_path: Path) -> None:
    compiler = fake_compiler(tmp_path, COUNTING)
    environment = os.environ | {"CXX": str(compiler)}
    command = [sys.executable, "-c", BUILD_AND_PRINT, str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    paths = {process.communicate()[0].strip() for process in processes}
    assert len(paths) == 1
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [Path(paths.pop()).name]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            'case "$*" in *--version*) ;; *) echo "decoder.cpp:1: error: no such vector" >&2; exit 1;; esac',
            "no such vector",
        ),
        ("exit 3", "could not compile"),
    ],
)
def test_a_broken_compiler_is_named_with_its_first_error(
    script: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, script)))
    with pytest.raises(NativeUnavailable, match=expected):
        build_library(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_compiler_that_calls_the_processor_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, PARTICULAR)))
    build_library(tmp_path / "cache")
    assert "-mcpu=native" in (tmp_path / "fake-c++.arguments").read_text()


def test_a_compiler_that_cannot_be_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = fake_compiler(tmp_path, "")
    compiler.write_bytes(b"\0not a program")
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(NativeUnavailable, match=r"fake-c\+\+ cannot be run"):
        build_library(tmp_path / "cache")


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NativeUnavailable, match=r"install g\+\+ or clang"):
        build_library(tmp_path / "cache")


def test_a_cache_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, COUNTING)))
    (tmp_path / "file").write_text("")
    with pytest.raises(NativeUnavailable, match=r"cache folder .* cannot be used: .*set XDG_CACHE_HOME"):
        build_library(tmp_path / "file" / "cache")


def test_a_cache_folder_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, COUNTING)))
    shared = tmp_path / "cache"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(NativeUnavailable, match="chmod 700"):
        build_library(shared)


def test_a_damaged_library_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "decoder.so"
    damaged.write_bytes(b"not a library")
    with pytest.raises(NativeUnavailable, match="cannot be loaded"):
        load_library(damaged)
