"""From a checkpoint to a `Runner`: which backend, which types, how much memory for keys and values."""

from __future__ import annotations

import logging
from math import prod
from typing import TypedDict

import torch

from fireside.engine.memory import CACHE_SHARE, CACHE_TOKENS, cache_bytes_per_token
from fireside.engine.messages import WorkerConfig
from fireside.engine.native_runner import NativeRunner, native_shape
from fireside.engine.resources import available_cores, available_memory
from fireside.engine.runner import Runner
from fireside.engine.torch_runner import TorchRunner
from fireside.errors import ModelError
from fireside.gguf import GGMLType
from fireside.kernels.cpu.build import NativeUnavailable
from fireside.kernels.cpu.library import BLOCK_SIZE, load_library
from fireside.kernels.cpu.packing import packed_bits
from fireside.models.checkpoint import Checkpoint
from fireside.models.config import ModelConfig
from fireside.models.decoder import load_decoder

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
log = logging.getLogger(__name__)


class NativeTypes(TypedDict):
    """What `NativeRunner` computes with."""

    dtype: torch.dtype | None
    cache_dtype: torch.dtype


def native_types(config: WorkerConfig) -> NativeTypes:
    """Unless told otherwise weights as stored, and keys and values in bfloat16, but float32 with weights in float32."""
    dtype = _DTYPES.get(config.dtype)
    default = torch.float32 if dtype == torch.float32 else torch.bfloat16
    return {"dtype": dtype, "cache_dtype": _DTYPES.get(config.kv_cache_dtype, default)}


def load_runner(
    checkpoint: Checkpoint, config: WorkerConfig, max_context: int, draft: Checkpoint | None = None
) -> Runner:
    """The fastest backend that runs this model on this machine: native kernels on a CPU, PyTorch elsewhere.

    `draft`: a second model, whose weights and cache the native backend leaves room for.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device is set to cuda, but PyTorch finds no GPU here: set it to auto or cpu")
    threads = config.threads or available_cores()
    if device == "cpu":
        try:
            return _native(checkpoint, config, max_context, threads, draft)
        except NativeUnavailable as reason:
            if config.dtype == "quantized":
                raise ModelError(f"dtype is set to quantized, which needs the native kernels: {reason}") from reason
            if config.kv_cache_dtype != "auto":
                raise ModelError(
                    f"kv_cache_dtype is set to {config.kv_cache_dtype}, which needs the native kernels: {reason}"
                ) from reason
            log.warning("native kernels are off, PyTorch serves instead, several times slower: %s", reason)
    elif config.dtype == "quantized":
        raise ModelError("dtype is set to quantized, which only the CPU's native kernels compute with: set it to auto")
    elif config.kv_cache_dtype != "auto":
        raise ModelError(
            f"kv_cache_dtype is set to {config.kv_cache_dtype}, but a GPU keeps keys and values in the type of its "
            "weights: set it to auto"
        )
    torch.set_num_threads(threads)
    dtype = _DTYPES.get(config.dtype) or (torch.bfloat16 if device == "cuda" else torch.float32)
    decoder = load_decoder(checkpoint, dtype, device)
    blocks = _num_blocks([checkpoint.config], config, max_context, dtype, _free_memory(device))
    return TorchRunner(decoder, blocks, BLOCK_SIZE)


def _native(
    checkpoint: Checkpoint, config: WorkerConfig, max_context: int, threads: int, draft: Checkpoint | None
) -> NativeRunner:
    reason = native_shape(checkpoint.config).unsupported()
    if reason:
        raise NativeUnavailable(reason)
    load_library()  # before any weight is read: without a compiler nothing else is worth doing
    types = native_types(config)
    opened = [checkpoint] if draft is None else [checkpoint, draft]
    free = _free_memory("cpu") - sum(_weight_bytes(one, types["dtype"]) for one in opened)
    blocks = _num_blocks([one.config for one in opened], config, max_context, types["cache_dtype"], free)
    # PyTorch only packs, many small operations on several matrices at once, and then samples. Threads of its own would
    # wait for each other at every operation, and spin on the cores that the native step wants next.
    torch.set_num_threads(1)
    return NativeRunner(checkpoint, num_blocks=blocks, max_context=max_context, threads=threads, **types)


def _free_memory(device: str) -> int:
    return torch.cuda.mem_get_info()[0] if device == "cuda" else available_memory()


def _weight_bytes(checkpoint: Checkpoint, dtype: torch.dtype | None) -> int:
    """Once packed."""
    if dtype is not None:
        return sum(map(prod, checkpoint.shapes.values())) * dtype.itemsize
    return sum(int(count * packed_bits(GGMLType[name])) for name, count in checkpoint.types.items()) // 8


def _num_blocks(
    models: list[ModelConfig], config: WorkerConfig, max_context: int, cache_dtype: torch.dtype, free: int
) -> int:
    """`models`: all that keep keys and values in every block. `free`: bytes of memory that the weights leave."""
    per_token = cache_bytes_per_token(models, str(cache_dtype).removeprefix("torch."))
    if config.kv_cache_memory is not None:
        tokens = config.kv_cache_memory // per_token
    else:
        tokens = min(max(0, free) // CACHE_SHARE // per_token, max(CACHE_TOKENS, max_context))
    blocks = int(tokens) // BLOCK_SIZE
    if blocks < 2:
        raise ModelError(
            f"there is memory for {tokens} tokens of keys and values at {per_token:,} bytes each beside the weights, "
            f"fewer than two blocks of {BLOCK_SIZE}: free some, or raise kv_cache_memory"
        )
    return blocks
