"""The header of a safetensors file, read and checked without torch or numpy.

Format: https://github.com/huggingface/safetensors#format: a little-endian u64 length, that many bytes of JSON, data.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from fireside.errors import ModelError

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation


@dataclass(frozen=True)
class StoredTensor:
    """One tensor's type by its name in the format ("BF16", "F32", ...), and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return prod(self.shape)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """What `path` holds, by tensor name.

    Raises `ModelError` naming the file for anything that is not a whole safetensors file: damage and unfinished
    downloads show here, before anything is mapped.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            (length,) = struct.unpack("<Q", prefix) if len(prefix) == 8 else (size,)
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ModelError(f"{path} is not a whole safetensors file: its header would be longer than the file")
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a safetensors file, or is damaged: its header is not JSON") from error
    try:
        header.pop("__metadata__", None)
        tensors = {name: StoredTensor(str(entry["dtype"]), _shape(entry["shape"])) for name, entry in header.items()}
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{path} is damaged: its header does not describe tensors") from error
    if 8 + length + end > size:
        raise ModelError(
            f"{path} is incomplete: its tensors end at byte {8 + length + end:,}, the file at {size:,}; fetch it again"
        )
    return tensors


def _shape(value: list[int]) -> tuple[int, ...]:
    if not all(isinstance(size, int) and size >= 0 for size in value):
        raise ValueError(f"{value} is no shape")
    return tuple(value)
