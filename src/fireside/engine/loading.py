"""From a `WorkerConfig` to a running `Engine`: which backend, which types, how much memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from hashlib import sha256
from math import prod
from pathlib import Path

import torch

from fireside.engine.engine import Engine
from fireside.engine.fingerprint import fingerprint, model_fingerprint
from fireside.engine.grammar import GrammarCompiler
from fireside.engine.messages import EngineInfo, WorkerConfig
from fireside.engine.native_runner import NativeRunner, native_shape
from fireside.engine.resources import available_cores, available_memory
from fireside.engine.runner import Runner
from fireside.engine.saved_prefixes import SavedPrefixes
from fireside.engine.torch_runner import TorchRunner
from fireside.errors import ModelError
from fireside.kernels.cpu.build import NativeUnavailable
from fireside.kernels.cpu.library import BLOCK_SIZE, load_library
from fireside.models.checkpoint import Checkpoint, open_checkpoint
from fireside.models.config import ModelConfig
from fireside.models.decoder import load_decoder
from fireside.models.local import open_model

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Unless told otherwise the cache takes a quarter of the free memory, and no more than so many tokens: enough for 32
# conversations of 2,048. Pages are only touched when they are used.
_CACHE_SHARE = 4
_CACHE_TOKENS = 65_536

log = logging.getLogger(__name__)


def load_engine(config: WorkerConfig) -> tuple[Engine, EngineInfo]:
    """Raises `ModelError` if the model cannot be served as the config asks."""
    path = Path(config.model)
    saves = config.prefix_folder is not None and config.saved_prefix_tokens > 0
    identity = model_fingerprint(path) if saves else ""
    checkpoint = open_checkpoint(path)
    own_context = checkpoint.config.max_position_embeddings
    max_context = min(config.max_context or own_context, own_context)
    runner = load_runner(checkpoint, config, max_context)

    def load_vocabulary() -> tuple[str, Sequence[int]]:
        model = open_model(path)
        return model.load_tokenizer().to_json(), model.generation.eos_token_ids

    engine = Engine(
        runner,
        max_context=max_context,
        max_batch_tokens=config.max_batch_tokens,
        max_running=config.max_running,
        max_waiting=config.max_waiting,
        grammar_compiler=GrammarCompiler(checkpoint.config.vocab_size, load_vocabulary),
        grammar_timeout=config.grammar_timeout,
        speculative_tokens=config.speculative_tokens,
        saved_prefixes=_saved_prefixes(config, fingerprint(identity, checkpoint.config, runner)) if saves else None,
    )
    info = EngineInfo(
        model=config.name, device=runner.device, dtype=runner.dtype, backend=runner.backend,
        max_context=engine.max_context, block_size=runner.block_size, num_blocks=runner.num_blocks,
    )  # fmt: skip
    return engine, info


def _saved_prefixes(config: WorkerConfig, fingerprint: str) -> SavedPrefixes:
    assert config.prefix_folder is not None
    # One file for what somebody runs under these settings, whatever the fingerprint: what is stale gets replaced.
    settings = f"{Path(config.model).resolve()} {config.device} {config.dtype}"
    name = (
        f"{re.sub(r'[^A-Za-z0-9._-]', '_', config.name)[:64]}-{sha256(settings.encode()).hexdigest()[:12]}.safetensors"
    )
    return SavedPrefixes(Path(config.prefix_folder) / name, fingerprint, config.saved_prefix_tokens)


def load_runner(checkpoint: Checkpoint, config: WorkerConfig, max_context: int) -> Runner:
    """The fastest backend that runs this model on this machine: native kernels on a CPU, PyTorch elsewhere."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device is set to cuda, but PyTorch finds no GPU here: set it to auto or cpu")
    threads = config.threads or available_cores()
    if device == "cpu":
        try:
            return _native(checkpoint, config, max_context, threads)
        except NativeUnavailable as reason:
            if config.dtype == "quantized":
                raise ModelError(f"dtype is set to quantized, which needs the native kernels: {reason}") from reason
            log.warning("native kernels are off, PyTorch serves instead, several times slower: %s", reason)
    elif config.dtype == "quantized":
        raise ModelError("dtype is set to quantized, which only the CPU's native kernels compute with: set it to auto")
    torch.set_num_threads(threads)
    dtype = _DTYPES.get(config.dtype) or (torch.bfloat16 if device == "cuda" else torch.float32)
    decoder = load_decoder(checkpoint, dtype, device)
    blocks = _num_blocks(checkpoint.config, config, max_context, dtype, _free_memory(device))
    return TorchRunner(decoder, blocks, BLOCK_SIZE)


def _native(checkpoint: Checkpoint, config: WorkerConfig, max_context: int, threads: int) -> NativeRunner:
    reason = native_shape(checkpoint.config).unsupported()
    if reason:
        raise NativeUnavailable(reason)
    load_library()  # before any weight is read: without a compiler nothing else is worth doing
    dtype = _DTYPES.get(config.dtype)
    cache_dtype = torch.float32 if dtype == torch.float32 else torch.bfloat16
    weights = checkpoint.nbytes if dtype is None else sum(map(prod, checkpoint.shapes.values())) * dtype.itemsize
    blocks = _num_blocks(checkpoint.config, config, max_context, cache_dtype, _free_memory("cpu") - weights)
    # PyTorch only packs, many small operations on several matrices at once, and then samples. Threads of its own would
    # wait for each other at every operation, and spin on the cores that the native step wants next.
    torch.set_num_threads(1)
    return NativeRunner(checkpoint, num_blocks=blocks, max_context=max_context, threads=threads, dtype=dtype)


def _free_memory(device: str) -> int:
    return torch.cuda.mem_get_info()[0] if device == "cuda" else available_memory()


def _num_blocks(model: ModelConfig, config: WorkerConfig, max_context: int, cache_dtype: torch.dtype, free: int) -> int:
    """`free`: bytes of memory that the weights leave."""
    per_token = 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_dim * cache_dtype.itemsize
    if config.kv_cache_memory is not None:
        tokens = config.kv_cache_memory // per_token
    else:
        tokens = min(max(0, free) // _CACHE_SHARE // per_token, max(_CACHE_TOKENS, max_context))
    blocks = int(tokens) // BLOCK_SIZE
    if blocks < 2:
        raise ModelError(
            f"there is memory for {tokens} tokens of keys and values at {per_token:,} bytes each beside the weights, "
            f"fewer than two blocks of {BLOCK_SIZE}: free some, or raise kv_cache_memory"
        )
    return blocks
