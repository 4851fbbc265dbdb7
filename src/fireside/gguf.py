"""The GGUF container: metadata and tensor directory, read through a memory map, without torch or numpy.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian).
Both the tokenizers and the models rooms read from it, so it stands below them.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from pathlib import Path
from typing import Any

from fireside.errors import ModelError

MAGIC = b"GGUF"
MAX_ITEMS = 1 << 24  # metadata arrays and tensors beyond this are damage, not data
MAX_STRING = 1 << 26


class GGMLType(IntEnum):
    """Tensor types of ggml that Fireside reads. Values are those of `enum ggml_type`."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    BF16 = 30


BLOCK_LAYOUT: dict[GGMLType, tuple[int, int]] = {
    # type: (weights per block, bytes per block)
    GGMLType.F32: (1, 4),
    GGMLType.F16: (1, 2),
    GGMLType.BF16: (1, 2),
    GGMLType.Q4_0: (32, 18),
    GGMLType.Q4_1: (32, 20),
    GGMLType.Q5_0: (32, 22),
    GGMLType.Q5_1: (32, 24),
    GGMLType.Q8_0: (32, 34),
    GGMLType.Q2_K: (256, 84),
    GGMLType.Q3_K: (256, 110),
    GGMLType.Q4_K: (256, 144),
    GGMLType.Q5_K: (256, 176),
    GGMLType.Q6_K: (256, 210),
}


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies. `shape` is in PyTorch's order (rows first), the reverse of the file's."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int  # bytes from the start of the file
    nbytes: int


_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


class GGUFFile:
    """An open GGUF file. `metadata` maps keys to Python values; `tensors` maps names to `TensorInfo`.

    Raises `ModelError` naming the file for anything that is not a whole, readable GGUF.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read: {error}") from error
        self._position = 0
        try:
            self._read()
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise ModelError(f"{path} is damaged or incomplete (its header cannot be read): fetch it again") from error

    def _read(self) -> None:
        if self.data[:4] != MAGIC:
            raise ModelError(f"{self.path} is not a GGUF file: it begins with {bytes(self.data[:4])!r}")
        self._position = 4
        version = self._scalar("<I")
        if version not in (2, 3):
            raise ModelError(f"{self.path} has GGUF version {version}; versions 2 and 3 are supported")
        tensor_count, metadata_count = self._count(), self._count()
        self.metadata: dict[str, Any] = {}
        for _ in range(metadata_count):
            key = self._string("strict")
            self.metadata[key] = self._value(self._scalar("<I"))
        entries = [self._tensor_entry() for _ in range(tensor_count)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise ModelError(f"{self.path} is damaged: alignment {alignment!r}")
        start = -(-self._position // alignment) * alignment
        self.tensors = {name: self._locate(name, shape, code, start + offset) for name, shape, code, offset in entries}

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string("strict")
        rank = self._scalar("<I")
        if rank > 4:
            raise ModelError(f"{self.path} is damaged: tensor {name} has {rank} dimensions")
        shape = tuple(self._scalar("<Q") for _ in range(rank))[::-1]
        return name, shape, self._scalar("<I"), self._scalar("<Q")

    def _locate(self, name: str, shape: tuple[int, ...], code: int, offset: int) -> TensorInfo:
        try:
            kind = GGMLType(code)
        except ValueError:
            supported = ", ".join(t.name for t in GGMLType)
            raise ModelError(
                f"{self.path}: tensor {name} has ggml type {code}, which is not supported; supported: {supported}"
            ) from None
        per_block, block_bytes = BLOCK_LAYOUT[kind]
        if not shape or shape[-1] % per_block:
            raise ModelError(f"{self.path} is damaged: tensor {name} of type {kind.name} has shape {shape}")
        nbytes = prod(shape) // per_block * block_bytes
        if offset + nbytes > len(self.data):
            raise ModelError(
                f"{self.path} is incomplete: tensor {name} ends at byte {offset + nbytes:,}, "
                f"the file at {len(self.data):,}; fetch it again"
            )
        return TensorInfo(name, shape, kind, offset, nbytes)

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(code, self.data, self._position)
        self._position += struct.calcsize(code)
        return value

    def _count(self) -> int:
        count: int = self._scalar("<Q")
        if count > MAX_ITEMS:
            raise ModelError(f"{self.path} is damaged: it claims {count:,} items in one list")
        return count

    def _string(self, errors: str = "surrogateescape") -> str:
        """Names are strict, for they stand in messages; a vocabulary's pieces may be any bytes."""
        length = self._scalar("<Q")
        if length > MAX_STRING or self._position + length > len(self.data):
            raise ModelError(f"{self.path} is damaged or incomplete: it claims a text of {length:,} bytes")
        raw = self.data[self._position : self._position + length]
        self._position += length
        return raw.decode("utf-8", errors)

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY or depth > 1:
            raise ModelError(f"{self.path} is damaged: metadata of type {kind}")
        item, count = self._scalar("<I"), self._count()
        if item in _SCALARS:  # one call for the whole array: vocabularies hold hundreds of thousands of scores
            code = f"<{count}{_SCALARS[item][1]}"
            values = struct.unpack_from(code, self.data, self._position)
            self._position += struct.calcsize(code)
            return list(values)
        if item == _STRING:
            return self._strings(count)
        return [self._value(item, depth + 1) for _ in range(count)]

    def _strings(self, count: int) -> list[str]:
        """`_string` for a whole vocabulary: in one loop without calls it takes half the time to open a file."""
        data, position, end = self.data, self._position, len(self.data)
        length_of = struct.Struct("<Q").unpack_from
        strings = []
        for _ in range(count):
            start = position + 8
            position = start + length_of(data, position)[0]
            if position > end:
                raise ModelError(f"{self.path} is damaged or incomplete: a text ends beyond the file")
            strings.append(data[start:position].decode("utf-8", "surrogateescape"))
        self._position = position
        return strings
