"""Compiles the native kernels into a wheel, one library per kind of processor, where this machine has a compiler.

An editable install takes none along: its sources change, and it compiles them at first use. FIRESIDE_VARIANTS names
those wanted, separated by spaces, instead of all; empty makes the pure wheel that a machine without a compiler makes.
Libraries stay in build/, for the next wheel of the same sources.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent / "src"))

from fireside.kernels.cpu.build import NativeUnavailable, build_variant, find_compiler
from fireside.kernels.cpu.variants import Variant, variants

# PyTorch's wheels ask for these, so nobody who has PyTorch has less.
_GLIBC, _GLIBCXX = (2, 28), (3, 4, 24)


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or sys.platform != "linux":
            return
        chosen = _chosen()
        if not chosen:
            return
        try:
            find_compiler()
        except NativeUnavailable as reason:
            self.app.display_warning(f"a wheel without native kernels: {reason}")
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            libraries = [path for path in pool.map(self._build, chosen) if path]
        if libraries:
            inside = "fireside/kernels/cpu/prebuilt"
            build_data["force_include"] |= {str(path): f"{inside}/{path.name}" for path in libraries}
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag(libraries)}"

    @property
    def _folder(self) -> Path:
        return Path(self.root) / "build" / "kernels"

    def _build(self, variant: Variant) -> Path | None:
        try:
            return build_variant(variant, self._folder)
        except NativeUnavailable as reason:  # an older compiler may not know the newest processors
            self.app.display_warning(f"a wheel without kernels for {variant.name}: {reason}")
            return None


def _chosen() -> list[Variant]:
    """Raises ValueError for a name in FIRESIDE_VARIANTS that is none of this machine's."""
    known = {variant.name: variant for variant in variants()}
    wanted = os.environ.get("FIRESIDE_VARIANTS")
    names = list(known) if wanted is None else wanted.split()
    for name in names:
        if name not in known:
            raise ValueError(f"FIRESIDE_VARIANTS names {name}; on this machine there are: {', '.join(known) or 'none'}")
    return [known[name] for name in dict.fromkeys(names)]


def platform_tag(libraries: list[Path]) -> str:
    """The oldest system that they run on, by the versions of symbols that they name (PEP 600)."""
    content = b"".join(path.read_bytes() for path in libraries)
    if _newest(rb"GLIBC_", content) <= _GLIBC and _newest(rb"GLIBCXX_", content) <= _GLIBCXX:
        glibc = _GLIBC
    elif platform.libc_ver()[0] == "glibc":
        glibc = tuple(map(int, platform.libc_ver()[1].split(".")[:2]))  # this machine's own, which they surely run on
    else:
        return f"linux_{platform.machine()}"
    return f"manylinux_{glibc[0]}_{glibc[1]}_{platform.machine()}"


def _newest(prefix: bytes, content: bytes) -> tuple[int, ...]:
    found = re.findall(prefix + rb"(\d+(?:\.\d+)+)\0", content)
    return max((tuple(map(int, version.split(b"."))) for version in found), default=(0,))
