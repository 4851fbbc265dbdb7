"""How much memory a model takes: its weights, and the keys and values of what it talks about. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from fireside.gguf import GGUFFile
from fireside.models.config import ModelConfig
from fireside.models.local import LocalModel, safetensors_files
from fireside.models.safetensors_header import read_header

# Unless told otherwise the cache takes a quarter of the free memory, and no more than so many tokens: enough for 32
# conversations of 2,048. Pages are only touched when they are used.
CACHE_SHARE = 4
CACHE_TOKENS = 65_536

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
# A worker without weights: the interpreter, PyTorch and its libraries, and what packing takes in between.
_PROCESS_BYTES = 450 << 20
_PACKED = 1.04  # K-quants with minimums take so much more once they are packed
_PACKED_SMALL = {"Q2_K": 2.0, "Q3_K": 1.35}  # which are kept in four bits
_LEAST_TOKENS = 2048  # of cache, below which a second model is not worth its weights


def cache_bytes_per_token(models: Iterable[ModelConfig], dtype: str) -> int:
    """Of keys and values of all `models`. dtype: "float32", "bfloat16", or "int8", with a scale beside each head."""
    item, scale = _ITEM_BYTES[dtype], 4 if dtype == "int8" else 0
    return sum(
        2 * model.num_hidden_layers * model.num_key_value_heads * (model.head_dim * item + scale) for model in models
    )


@dataclass(frozen=True)
class MemoryNeed:
    """In bytes: of the process and its weights; of one token's keys and values. context: tokens of the longest text.

    set_cache: bytes of the cache, where a setting says.
    """

    weights: int
    per_token: int
    context: int
    set_cache: int | None = None

    @property
    def least(self) -> int:
        """Below which it is not worth loading."""
        return self.weights + (self.set_cache or self.per_token * min(self.context, _LEAST_TOKENS))

    def cache(self, free: int) -> int:
        """What its cache may take when `free` bytes are left for weights and cache."""
        if self.set_cache is not None:
            return self.set_cache
        share = max(free - self.weights, 0) // CACHE_SHARE
        most = self.per_token * max(CACHE_TOKENS, self.context)
        return min(max(share, self.least - self.weights), most)


def memory_need(
    model: LocalModel, *, dtype: str, cache_dtype: str, max_context: int | None, set_cache: int | None = None
) -> MemoryNeed:
    """dtype: what weights are computed in, "stored" for as they are in the file. Raises `ModelError` for damage."""
    parts = [model] if model.base is None else [model, model.base]
    weights = _PROCESS_BYTES + sum(_weight_bytes(part, dtype) for part in parts)
    own = model.config.max_position_embeddings
    per_token = cache_bytes_per_token([model.config], cache_dtype)
    return MemoryNeed(weights, per_token, min(max_context or own, own), set_cache)


def _weight_bytes(model: LocalModel, dtype: str) -> int:
    if dtype != "stored":
        return _num_weights(model) * _ITEM_BYTES[dtype]
    factor = _PACKED_SMALL.get(model.weight_type, _PACKED) if model.format == "gguf" else 1.0
    return int(model.size_bytes * factor)


def _num_weights(model: LocalModel) -> int:
    if model.format == "gguf":
        return sum(prod(info.shape) for info in GGUFFile(model.path).tensors.values())
    if model.format == "adapter":
        return model.size_bytes // 4  # small beside its base, and mostly float32
    return sum(t.num_elements for file in safetensors_files(model.path) for t in read_header(file).values())
