"""The machine that a benchmark runs on: what it is, and how fast its memory is."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# Of some hundred flags, those that decide which kernels run.
_FLAGS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_COPY_BYTES = 256 << 20  # several times a large last-level cache
_COPY_PASSES = 4


@dataclass(frozen=True)
class Machine:
    processor: str
    flags: tuple[str, ...]
    logical_processors: int
    memory_gib: float
    system: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        cpu = first_fields(Path("/proc/cpuinfo"))
        present = set(cpu.get("flags", cpu.get("Features", "")).split())
        memory_kib = first_fields(Path("/proc/meminfo")).get("MemTotal", "0 kB").split()[0]
        return cls(
            processor=cpu.get("model name") or platform.processor() or platform.machine(),
            flags=tuple(flag for flag in _FLAGS if flag in present),
            logical_processors=os.cpu_count() or 1,
            memory_gib=round(int(memory_kib) / (1 << 20), 1),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
        )

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.logical_processors} logical processors ({' '.join(self.flags)}), "
            f"{self.memory_gib:g} GiB, {self.system}, Python {self.python}"
        )


def first_fields(path: Path) -> dict[str, str]:
    """The first value of each `name : value` line; nothing where there is no such file (not Linux)."""
    found: dict[str, str] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def copy_bandwidth(threads: int) -> float:
    """Bytes per second, those read and those written both counted (STREAM's copy), by `threads` calls of memmove.

    The best of a few passes: what disturbs a copy only ever makes it slower.
    """
    source, target = mmap.mmap(-1, _COPY_BYTES), mmap.mmap(-1, _COPY_BYTES)
    addresses = [ctypes.addressof(ctypes.c_char.from_buffer(memory)) for memory in (source, target)]
    for address in addresses:
        ctypes.memset(address, 1, _COPY_BYTES)  # else every page would be one and the same page of zeros
    share = _COPY_BYTES // threads
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_COPY_PASSES):
            started = time.perf_counter()
            # ctypes lets go of the interpreter's lock for the length of the call.
            parts = [
                pool.submit(ctypes.memmove, addresses[1] + i * share, addresses[0] + i * share, share)
                for i in range(threads)
            ]
            for part in parts:
                part.result()
            best = min(best, time.perf_counter() - started)
    return 2 * share * threads / best
