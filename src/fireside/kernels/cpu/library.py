"""The native decoder, called through ctypes: one call is one step of the whole model (see decoder.cpp)."""

from __future__ import annotations

import ctypes
import logging
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from fireside.errors import ModelError
from fireside.kernels.cpu.build import NativeUnavailable, build_library, prebuilt_library
from fireside.kernels.cpu.packing import MatrixStruct, PackedMatrix

ABI = 2
BLOCK_SIZE = 16  # positions per cache block: the lanes of a vector (kv_cache.h)
MAX_HEAD_DIM = 256

_MATRICES = ("query", "key", "value", "output", "gate", "up", "down")
_NORMS = ("attention_norm", "mlp_norm", "query_norm", "key_norm")
_BIASES = tuple(f"{name}_bias" for name in _MATRICES)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """One layer. Norms and biases are float32 vectors; those a model lacks are None."""

    query: PackedMatrix
    key: PackedMatrix
    value: PackedMatrix
    output: PackedMatrix
    gate: PackedMatrix
    up: PackedMatrix
    down: PackedMatrix
    attention_norm: Tensor
    mlp_norm: Tensor
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    value_bias: Tensor | None = None
    output_bias: Tensor | None = None
    gate_bias: Tensor | None = None
    up_bias: Tensor | None = None
    down_bias: Tensor | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            vector = getattr(self, field.name)
            if isinstance(vector, Tensor) and (vector.dtype != torch.float32 or not vector.is_contiguous()):
                raise ValueError(f"{field.name} must be a contiguous float32 vector")


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    sliding_window: int | None = None

    def unsupported(self) -> str | None:
        """Why the native kernels cannot run this shape, or None if they can."""
        if self.head_dim % 16 or self.head_dim > MAX_HEAD_DIM:
            return f"a head of {self.head_dim} is not a multiple of 16 up to {MAX_HEAD_DIM}"
        for name, size in (("hidden", self.hidden_size), ("intermediate", self.intermediate_size)):
            if size % 16:
                return f"the {name} size {size} is not a multiple of 16"
        return None


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, MatrixStruct) for name in _MATRICES),
        *((name, ctypes.c_void_p) for name in (*_NORMS, *_BIASES)),
    )


class _Cache(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values", "key_scales", "value_scales")),
        *((name, ctypes.c_int32) for name in ("element_size", "blocks")),
    )


class _Config(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int32)
            for name in (
                "layers", "hidden_size", "intermediate_size", "heads", "kv_heads", "head_dim", "vocab_size",
                "sliding_window", "threads",
            )
        ),
        ("rms_norm_eps", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("cosines", "sines")),
        ("cache", _Cache),
        ("embedding", MatrixStruct),
        ("head", MatrixStruct),
        ("final_norm", ctypes.c_void_p),
        ("layer", ctypes.POINTER(_Layer)),
    )  # fmt: skip


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("tokens", "sequences", "table_width", "logits")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "token_ids", "positions", "query_starts", "context_lengths", "block_tables", "logit_indices", "out",
            )
        ),
    )  # fmt: skip


@cache
def load_library(path: Path | None = None) -> ctypes.CDLL:
    """The library at `path`, or else the wheel's, or else one compiled here. Raises `NativeUnavailable`."""
    prebuilt = prebuilt_library() if path is None else path
    if prebuilt is None:
        return _open_library(build_library())
    try:
        return _open_library(prebuilt)
    except NativeUnavailable as reason:
        if path is not None:
            raise
        log.warning("%s: compiling the kernels instead", reason)
        return _open_library(build_library())


def _open_library(target: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(target))
    except OSError as error:
        raise NativeUnavailable(f"{target} cannot be loaded: {error}") from error
    library.fireside_decoder_new.restype = ctypes.c_void_p
    library.fireside_decoder_new.argtypes = [ctypes.POINTER(_Config)]
    library.fireside_decoder_free.argtypes = [ctypes.c_void_p]
    library.fireside_decoder_forward.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Batch)]
    library.fireside_multiply.argtypes = [
        ctypes.POINTER(MatrixStruct), ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p,
    ]  # fmt: skip
    library.fireside_unpack_row.argtypes = [ctypes.POINTER(MatrixStruct), ctypes.c_int, ctypes.c_void_p]
    if library.fireside_abi() != ABI:
        raise NativeUnavailable(f"{target} was built from other sources (delete it)")
    return library


class NativeDecoder:
    """Owns packed weights and the paged cache; `forward` runs one batch. Not safe to call from two threads at once."""

    def __init__(
        self, shape: DecoderShape, layers: Sequence[LayerWeights], embedding: PackedMatrix, head: PackedMatrix,
        final_norm: Tensor, cosines: Tensor, sines: Tensor, *, num_blocks: int, kv_dtype: torch.dtype, threads: int,
    ) -> None:  # fmt: skip
        """`cosines`, `sines`: float32 [positions, head_dim / 2]. `kv_dtype`: float32, bfloat16, or int8 with a float32
        scale per position and head.

        Raises `NativeUnavailable`, and `ModelError` if there is no memory for the cache.
        """
        reason = shape.unsupported()
        if reason:
            raise NativeUnavailable(reason)
        if kv_dtype not in (torch.float32, torch.bfloat16, torch.int8):
            raise ValueError(f"the cache holds float32, bfloat16 or int8, not {kv_dtype}")
        self._library = load_library()
        self.shape = shape
        heads = (len(layers), num_blocks, shape.kv_heads)
        numbers = (*heads, BLOCK_SIZE * shape.head_dim)
        #: each [layers, num_blocks, kv_heads, ...]: keys and values in the order of kv_cache.h, and the scales of int8
        self.cache_tensors = {name: _untouched_zeros(numbers, kv_dtype) for name in ("keys", "values")}
        if kv_dtype == torch.int8:
            scales = ("key_scales", "value_scales")
            self.cache_tensors |= {name: _untouched_zeros((*heads, BLOCK_SIZE), torch.float32) for name in scales}
        self._owned = (list(layers), embedding, head, final_norm, cosines, sines)
        structs = (_Layer * len(layers))(*(_layer_struct(layer) for layer in layers))
        config = _Config(
            layers=len(layers), hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
            heads=shape.heads, kv_heads=shape.kv_heads, head_dim=shape.head_dim, vocab_size=shape.vocab_size,
            sliding_window=shape.sliding_window or 0, threads=threads, rms_norm_eps=shape.rms_norm_eps,
            cosines=cosines.data_ptr(), sines=sines.data_ptr(),
            cache=_Cache(
                **{name: tensor.data_ptr() for name, tensor in self.cache_tensors.items()},
                element_size=kv_dtype.itemsize, blocks=num_blocks,
            ),
            embedding=embedding.struct(), head=head.struct(), final_norm=final_norm.data_ptr(), layer=structs,
        )  # fmt: skip
        self._handle = self._library.fireside_decoder_new(ctypes.byref(config))
        if not self._handle:
            raise NativeUnavailable(f"{threads} threads could not be started")

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.fireside_decoder_free(self._handle)

    def forward(
        self, token_ids: Tensor, positions: Tensor, query_starts: Tensor, context_lengths: Tensor,
        block_tables: Tensor, logit_indices: Tensor,
    ) -> Tensor:  # fmt: skip
        """Contiguous int32 tensors as in `engine.runner.ForwardBatch`; returns float32 [logits, vocab]."""
        logits = torch.empty(len(logit_indices), self.shape.vocab_size)
        batch = _Batch(
            len(token_ids), len(context_lengths), block_tables.shape[1], len(logit_indices),
            token_ids.data_ptr(), positions.data_ptr(), query_starts.data_ptr(), context_lengths.data_ptr(),
            block_tables.data_ptr(), logit_indices.data_ptr(), logits.data_ptr(),
        )  # fmt: skip
        if self._library.fireside_decoder_forward(self._handle, ctypes.byref(batch)):
            raise MemoryError("the native decoder ran out of memory for its buffers")
        return logits


def _untouched_zeros(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros whose pages the system hands out when they are first written; `torch.zeros` would touch them all."""
    length = prod(size) * dtype.itemsize
    try:
        memory = mmap.mmap(-1, length)
    except (OSError, OverflowError) as error:
        raise ModelError(
            f"the system does not give {length:,} bytes for keys or values: lower kv_cache_memory"
        ) from error
    return torch.frombuffer(memory, dtype=dtype).reshape(size)


def _layer_struct(layer: LayerWeights) -> _Layer:
    struct = _Layer(*(getattr(layer, name).struct() for name in _MATRICES))
    for name in (*_NORMS, *_BIASES):
        vector = getattr(layer, name)
        setattr(struct, name, None if vector is None else vector.data_ptr())
    return struct
