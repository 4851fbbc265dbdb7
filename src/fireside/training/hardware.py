"""Devices, threads and precision, by Lightning Fabric."""

from __future__ import annotations

import ctypes
import logging
import os
from contextlib import suppress
from typing import Any

import torch
from lightning_fabric import Fabric

from fireside.engine.resources import available_cores
from fireside.errors import RecipeError
from fireside.training.processes import signals_held
from fireside.training.recipe import HardwareConfig
from fireside.training.sharding import sharding_strategy

# Of glibc's malloc.h and malloc.c: what `mallopt` calls them, and the most that it takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20


def device_of(config: HardwareConfig) -> torch.device:
    """The kind of device that `config` means. Raises `RecipeError`."""
    accelerator = config.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise RecipeError("hardware.accelerator is cuda, and PyTorch finds no GPU here: set it to cpu, or to auto")
    return torch.device(accelerator)


def make_fabric(config: HardwareConfig) -> Fabric:
    """A Fabric for `config`, in the form that one process of a launch holds. Raises `RecipeError`."""
    device = device_of(config)
    if device.type == "cpu":
        torch.set_num_threads(config.threads or available_cores())
        _keep_freed_memory()
    else:
        # Sums whose order a GPU leaves to chance would keep a resumed run from repeating bits.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # With it PyTorch fills all new memory, lest a program read what it never wrote: a pass over every activation.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.allow_tf32 = config.precision != "fp32"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the run says itself what matters
    is_bf16 = uses_bf16(config, device)
    strategy: Any = config.strategy if config.devices * config.nodes > 1 else "auto"
    if config.shards > 1:
        strategy = sharding_strategy(config.shards, is_bf16=is_bf16)
    precision: Any = "bf16-mixed" if is_bf16 else "32-true"
    fabric = Fabric(
        accelerator=device.type, devices=config.devices, num_nodes=config.nodes, strategy=strategy, precision=precision
    )
    with signals_held():
        fabric.launch()
    return fabric


def _keep_freed_memory() -> None:
    """Lets glibc keep what a step frees, for the next step to take: to give back and fetch as many pages again, zeroed
    by the kernel, costs a tenth of a step. What counts is the peak, which stays the same. Elsewhere it does nothing."""
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(ctypes.c_int(_M_MMAP_THRESHOLD), ctypes.c_int(_LARGEST_MMAP_THRESHOLD))
        libc.mallopt(ctypes.c_int(_M_TRIM_THRESHOLD), ctypes.c_int(2**31 - 1))


def uses_bf16(config: HardwareConfig, device: torch.device) -> bool:
    """Whether products are made in bfloat16: asked for, or auto on hardware that has instructions for them."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without such instructions oneDNN emulates them, which is slower than float32.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
