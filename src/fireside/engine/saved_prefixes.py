"""`SavedPrefixes`: preambles' keys and values in a file, so that the first answer after a restart starts warm.

A preamble is what a prompt holds before the conversation: system message, tools, the template's own words. Nothing
else is written. The file is a trie of full blocks in safetensors: `tokens` int32 [blocks, block_size], `parents` int32
[blocks] (an index before the block's own, or -1), and `cache.NAME` [layers, blocks, ...] for each of the runner's
tensors. Its metadata holds a fingerprint of what the numbers depend on, and a checksum of all tensors.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fireside.engine.blocks import BlockManager
from fireside.engine.prefix_cache import Node
from fireside.engine.runner import Runner
from fireside.folders import others_can_write
from fireside.models.saving import flush

FORMAT = "fireside prefixes 1"
_LOCK_SECONDS = 1.0  # that one who saves waits for another

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Saved:
    """What a file holds, checked. `tensors`: the cache's, by the runner's names."""

    tokens: list[tuple[int, ...]]
    parents: list[int]
    tensors: dict[str, Tensor]


class SavedPrefixes:
    """One file of at most `max_tokens` tokens. A file with another `fingerprint` is left alone until the next save.

    Neither `load` nor `save` raises for what can happen to a file: they log one line, and answers start cold.
    """

    def __init__(self, path: Path, fingerprint: str, max_tokens: int) -> None:
        self.path = path
        self._fingerprint = fingerprint
        self._max_tokens = max_tokens
        self._in_file: set[Node] = set()

    def load(self, runner: Runner, blocks: BlockManager) -> None:
        """Brings what was saved into the cache, where it can be used or evicted as if it had just been computed."""
        try:
            saved = self._read(runner) if self.path.is_file() else None
        except OSError as error:
            log.warning("saved prefixes cannot be read, answers start cold: %s: %s", self.path, error)
            return
        except (SafetensorError, ValueError) as error:
            log.warning("saved prefixes are damaged and removed, answers start cold: %s: %s", self.path, error)
            with suppress(OSError):
                self.path.unlink()
            return
        if saved is None:
            return
        free = blocks.free_blocks(len(saved.tokens))
        count = len(free)
        for name, tensor in runner.cache_tensors.items():
            index = torch.tensor(free, device=tensor.device)
            tensor.index_copy_(1, index, saved.tensors[name][:, :count].to(tensor.device))
        self._in_file = set(blocks.adopt(free, saved.tokens[:count], saved.parents[:count]))
        log.info("%d tokens of saved prefixes came from %s", count * blocks.block_size, self.path)

    def save(self, runner: Runner, blocks: BlockManager) -> None:
        """Writes the preambles that are in the cache, the most recently used first, unless the file has just them."""
        nodes = blocks.cache.preambles(self._max_tokens // blocks.block_size)
        try:
            if not nodes or (self._in_file == set(nodes) and self.path.exists()):
                return
            self._write(nodes, runner, blocks.cache.root)
        except Timeout:
            log.info("another process is saving prefixes to %s; its will do", self.path)
        except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
            log.warning("prefixes cannot be saved, the next start will be cold: %s: %s", self.path, error)
        else:
            log.info("%d tokens of prefixes were saved to %s", len(nodes) * blocks.block_size, self.path)

    def _read(self, runner: Runner) -> _Saved | None:
        """None for another fingerprint's. Raises OSError, SafetensorError or ValueError."""
        self._refuse_shared()
        with safe_open(self.path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("fingerprint") != self._fingerprint:
                log.info("%s was saved with another model, settings or version; answers start cold", self.path)
                return None
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        count = tensors["parents"].numel() if "parents" in tensors else 0
        if count * runner.block_size > self._max_tokens:
            log.info("%s holds more than saved_prefix_tokens allows; answers start cold", self.path)
            return None
        cache = {name: (t.dtype, (t.shape[0], count, *t.shape[2:])) for name, t in runner.cache_tensors.items()}
        wanted = {
            "tokens": (torch.int32, (count, runner.block_size)),
            "parents": (torch.int32, (count,)),
            **{f"cache.{name}": form for name, form in cache.items()},
        }
        if not count or {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} != wanted:
            raise ValueError("its tensors have other names, types or shapes than it should have")
        if _checksum(tensors) != metadata.get("sha256"):
            raise ValueError("its checksum does not match")
        tokens = [tuple(block) for block in tensors["tokens"].tolist()]
        parents = tensors["parents"].tolist()
        _check_trie(tokens, parents, runner.vocab_size)
        return _Saved(tokens, parents, {name: tensors[f"cache.{name}"] for name in cache})

    def _write(self, nodes: list[Node], runner: Runner, root: Node) -> None:
        """The file appears at once and complete. Raises OSError, Timeout, SafetensorError, RuntimeError."""
        place: dict[Node | None, int] = {root: -1, **{node: index for index, node in enumerate(nodes)}}
        index = torch.tensor([node.block for node in nodes])
        tensors = {
            "tokens": torch.tensor([node.tokens for node in nodes], dtype=torch.int32),
            "parents": torch.tensor([place[node.parent] for node in nodes], dtype=torch.int32),
        }
        for name, tensor in runner.cache_tensors.items():
            tensors[f"cache.{name}"] = tensor.index_select(1, index.to(tensor.device)).cpu()
        metadata = {"format": FORMAT, "fingerprint": self._fingerprint, "sha256": _checksum(tensors)}
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._refuse_shared()
        # Named after the file, for other models' servers stop at the same time.
        with FileLock(folder / f".{self.path.name}.lock", timeout=_LOCK_SECONDS, mode=0o600):
            staging = (
                folder / f".{self.path.name}.partial"
            )  # a folder, since `save_file` makes a file of another name first
            shutil.rmtree(staging, ignore_errors=True)  # of one who was killed
            try:
                staging.mkdir(mode=0o700)
                partial = staging / self.path.name
                save_file(tensors, partial, metadata)
                partial.chmod(0o600)
                flush(partial)
                partial.replace(self.path)
                flush(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def _refuse_shared(self) -> None:
        """What was said to others stands in the file, and what others put there would be in our answers."""
        if others_can_write(self.path.parent):
            raise PermissionError(f"the folder {self.path.parent} can be written by other users (chmod 700 it)")


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of contiguous tensors on the CPU: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
    return digest.hexdigest()


def _check_trie(tokens: list[tuple[int, ...]], parents: list[int], vocab_size: int) -> None:
    """Raises ValueError unless every block comes after its parent, once, and holds tokens of the vocabulary."""
    paths = set(zip(parents, tokens, strict=True))
    if len(paths) != len(tokens):
        raise ValueError("it holds a block twice")
    if any(not -1 <= parent < index for index, parent in enumerate(parents)):
        raise ValueError("it holds a block before its parent")
    if any(not 0 <= token < vocab_size for block in tokens for token in block):
        raise ValueError(f"it holds tokens beyond the vocabulary of {vocab_size}")
