"""The builds of the kernels that a wheel brings: one per kind of processor, and which of them this one can run."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Variant:
    """`requires`: all that `flags` lets the compiler use, as Linux names it; the kernel leaves out what it has off."""

    name: str
    flags: tuple[str, ...]
    requires: frozenset[str] = frozenset()


# What the x86-64 psABI puts into its levels beyond the first, which every such processor has.
_V3 = frozenset(
    "pni ssse3 sse4_1 sse4_2 popcnt cx16 lahf_lm avx avx2 bmi1 bmi2 f16c fma abm movbe xsave".split()  # noqa: SIM905
)
_V4_VNNI = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"}

# By machine, best first; the last needs nothing beyond the machine itself. On ARM the base has all that simd.h uses.
VARIANTS: dict[str, tuple[Variant, ...]] = {
    "x86_64": (
        Variant("x86-64-v4-bf16", ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"), _V4_VNNI | {"avx512_bf16"}),
        Variant("x86-64-v4-vnni", ("-march=x86-64-v4", "-mavx512vnni"), _V4_VNNI),
        Variant("x86-64-v3-vnni", ("-march=x86-64-v3", "-mavxvnni"), _V3 | {"avx_vnni"}),
        Variant("x86-64-v3", ("-march=x86-64-v3",), _V3),
        Variant("x86-64", ("-march=x86-64",)),
    ),
    "aarch64": (Variant("armv8-a", ("-march=armv8-a",)),),
}


def variants() -> tuple[Variant, ...]:
    """Those of this machine, best first; none where wheels bring none."""
    return VARIANTS.get(platform.machine(), ())


def runnable(features: frozenset[str]) -> tuple[Variant, ...]:
    """Those of this machine that a processor with these features can run, best first."""
    return tuple(variant for variant in variants() if variant.requires <= features)


def processor_features() -> frozenset[str]:
    """What every processor of this machine can do, as /proc/cpuinfo has it; nothing where that cannot be read."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    found = [frozenset(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))]
    return frozenset.intersection(*found) if found else frozenset()
