"""Weights on disk under one set of names, Hugging Face's, whatever holds them: safetensors, GGUF, an adapter over one.

Opening a checkpoint maps it, and checks that every tensor the config calls for is there in its right shape and that
none is left over. `tensor` then hands out views of the map: nothing is read before it is used, and nothing copied but
what an adapter updates.
"""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fireside.errors import ModelError
from fireside.gguf import GGMLType, GGUFFile
from fireside.models.adapter import Adapter, is_adapter, open_base, tensor_names
from fireside.models.config import ModelConfig
from fireside.models.gguf_config import config_from_gguf_file
from fireside.models.local import read_hf_config, safetensors_files, single_gguf
from fireside.models.quantization import FLOAT_DTYPES, QuantizedTensor, dequantize
from fireside.models.safetensors_header import read_header

SAFETENSORS_DTYPES = ("F32", "F16", "BF16")
_TYPE_NAMES = {dtype: kind.name for kind, dtype in FLOAT_DTYPES.items()}


def open_checkpoint(path: Path, models_dir: Path | None = None) -> Checkpoint:
    """Opens a .gguf file, a Hugging Face folder, a folder that holds one .gguf file, or an adapter, whose base is
    looked for in `models_dir`.

    Raises `ModelError` naming the file, and the tensor where it is one, for damage and for what is not supported.
    """
    if is_adapter(path):
        adapter, base = open_base(path, models_dir)
        return AdaptedCheckpoint(adapter, open_checkpoint(base))
    if path.is_dir() and any(path.glob("*.safetensors")):
        return SafetensorsCheckpoint(path)
    if path.is_dir():
        path = single_gguf(path)
    if not path.exists():
        raise ModelError(f"{path} does not exist")
    return GGUFCheckpoint(path)


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter of a decoder of this config by its canonical name; matrices are [outputs, inputs]."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    for name, outputs, inputs, bias in (
        ("self_attn.q_proj", queries, hidden, config.attention_bias),
        ("self_attn.k_proj", keys, hidden, config.attention_bias),
        ("self_attn.v_proj", keys, hidden, config.attention_bias),
        ("self_attn.o_proj", hidden, queries, config.attention_output_bias),
        ("mlp.gate_proj", inner, hidden, config.mlp_bias),
        ("mlp.up_proj", inner, hidden, config.mlp_bias),
        ("mlp.down_proj", hidden, inner, config.mlp_bias),
    ):
        layer[f"{name}.weight"] = (outputs, inputs)
        if bias:
            layer[f"{name}.bias"] = (outputs,)
    if config.qk_norm:
        layer["self_attn.q_norm.weight"] = layer["self_attn.k_norm.weight"] = (config.head_dim,)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for index in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


class Checkpoint(ABC):
    """Opened weights. `names` are canonical; `types` counts the stored numbers by type ("BF16", "Q4_1"),
    `weight_type` is that of most."""

    def __init__(self, path: Path, config: ModelConfig, types: Counter[str]) -> None:
        self.path = path
        self.config = config
        self.types = types
        self.weight_type = types.most_common(1)[0][0]
        self.shapes = expected_shapes(config)

    @property
    def names(self) -> list[str]:
        return list(self.shapes)

    @abstractmethod
    def tensor(self, name: str) -> Tensor | QuantizedTensor:
        """The weights of that canonical name, as stored: a view of the mapped file (q and k of a GGUF "llama": a
        copy), on the CPU. Only matrices are ever quantised. Do not write to it.

        Raises `KeyError` for a name that is not in `names`.
        """

    @abstractmethod
    def stored_type(self, name: str) -> str:
        """The type of that tensor, as in `types`."""

    def check_finite(self, name: str, weights: Tensor) -> None:
        """Raises `ModelError` if `weights` of that name (or their scales) hold NaN or infinity, which damage makes."""
        lowest, highest = weights.aminmax()  # NaN wins both; one pass and no mask of the weights' own size
        if not (lowest.isfinite() and highest.isfinite()):
            raise ModelError(
                f"{self.path} is damaged: tensor {name} holds values that are not finite numbers; fetch it again"
            )

    def _check(self, stored: Mapping[str, tuple[int, ...]], spelling: Mapping[str, str], unused: Iterable[str]) -> None:
        """`stored`: shapes by the file's own names, `spelling`: those names by canonical name, `unused`: the others."""
        for name, shape in self.shapes.items():
            own = spelling[name]
            if own not in stored:
                raise ModelError(f"{self.path} has no tensor {own}: it is incomplete, or its config is another model's")
            if stored[own] != shape:
                raise ModelError(f"{self.path}: tensor {own} has shape {stored[own]}; its config calls for {shape}")
        surplus = sorted(unused)
        if surplus:
            raise ModelError(
                f"{self.path} has {len(surplus)} tensors that {self.config.architecture} does not use, such as "
                f"{surplus[0]}: its config is another model's, or this variant is not supported"
            )


class SafetensorsCheckpoint(Checkpoint):
    """A folder with `config.json` and `model.safetensors`, or shards and their index."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        self._types: dict[str, str] = {}
        self._open: dict[Path, Any] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        types: Counter[str] = Counter()
        for file in safetensors_files(folder):
            for name, stored in read_header(file).items():
                if stored.dtype not in SAFETENSORS_DTYPES:
                    supported = ", ".join(SAFETENSORS_DTYPES)
                    raise ModelError(
                        f"{file}: tensor {name} is {stored.dtype}, which is not supported; supported: {supported}"
                    )
                self._files[name], self._types[name], shapes[name] = file, stored.dtype, stored.shape
                types[stored.dtype] += stored.num_elements
        if not types:
            raise ModelError(f"{folder} holds no tensors")
        super().__init__(folder, read_hf_config(folder)[1], types)
        # Old checkpoints store rotary tables, and tied ones the head a second time.
        ignored = {name for name in shapes if name.endswith("rotary_emb.inv_freq")}
        if self.config.tie_word_embeddings:
            ignored.add("lm_head.weight")
        self._check(shapes, {name: name for name in self.shapes}, shapes.keys() - self.shapes.keys() - ignored)

    def tensor(self, name: str) -> Tensor:
        if name not in self.shapes:
            raise KeyError(name)
        file = self._files[name]
        try:
            if file not in self._open:
                self._open[file] = safe_open(file, framework="pt")
            weights: Tensor = self._open[file].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file}: tensor {name} cannot be read: {error}") from error
        return weights

    def stored_type(self, name: str) -> str:
        return self._types[name]


class GGUFCheckpoint(Checkpoint):
    """A .gguf file. Matrices of ggml's block types come as `QuantizedTensor`, all else as plain tensors."""

    def __init__(self, path: Path) -> None:
        self._file = file = GGUFFile(path)
        types: Counter[str] = Counter()
        for info in file.tensors.values():
            types[info.type.name] += prod(info.shape)
        if not types:
            raise ModelError(f"{path} holds no tensors")
        super().__init__(path, config_from_gguf_file(file), types)
        self._spelling = {name: _gguf_name(name) for name in self.shapes}
        stored = {name: info.shape for name, info in file.tensors.items()}
        self._check(stored, self._spelling, stored.keys() - set(self._spelling.values()) - {"rope_freqs.weight"})
        with warnings.catch_warnings():
            # The map is read-only, and PyTorch has no read-only tensors. Nothing here writes.
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            self._bytes = torch.frombuffer(file.data, dtype=torch.uint8)

    def tensor(self, name: str) -> Tensor | QuantizedTensor:
        info = self._file.tensors[self._spelling[name]]
        data = self._bytes[info.offset : info.offset + info.nbytes]
        rows = info.shape[0] if len(info.shape) == 2 else 1
        data = data.reshape(rows, -1)
        if self._file.metadata["general.architecture"] == "llama":
            if ".q_proj." in name:
                data = _half_split_rows(data, info.shape[0], self.config.num_attention_heads)
            elif ".k_proj." in name:
                data = _half_split_rows(data, info.shape[0], self.config.num_key_value_heads)
        if info.type in FLOAT_DTYPES:
            return _as_float(data, info.type).reshape(info.shape)
        if len(info.shape) == 2:
            return QuantizedTensor(info.type, (info.shape[0], info.shape[1]), data)
        return dequantize(data, info.type).reshape(info.shape)

    def stored_type(self, name: str) -> str:
        return self._file.tensors[self._spelling[name]].type.name


class AdaptedCheckpoint(Checkpoint):
    """A base's weights with an adapter's updates added, matrix by matrix as each is asked for.

    An updated matrix is a copy in the base's own float type, or in `dtype` where the base is quantised.
    Raises `ModelError` if the adapter does not fit the base.
    """

    def __init__(self, adapter: Adapter, base: Checkpoint, dtype: torch.dtype = torch.bfloat16) -> None:
        self._adapter, self._base, self._dtype = adapter, base, dtype
        self._updated = frozenset(adapter.updated(base.shapes))
        types = Counter(base.types)
        for name in self._updated:
            types[base.stored_type(name)] -= prod(base.shapes[name])
            types[self.stored_type(name)] += prod(base.shapes[name])
        super().__init__(adapter.folder, base.config, +types)
        self._factors = safe_open(adapter.weights, framework="pt")

    def tensor(self, name: str) -> Tensor | QuantizedTensor:
        stored = self._base.tensor(name)
        if name not in self._updated:
            return stored
        try:
            a, b = (self._factors.get_tensor(own).float() for own in tensor_names(name))  # type: ignore[no-untyped-call]
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{self._adapter.weights}: the update of {name} cannot be read: {error}") from error
        dtype = self._dtype if isinstance(stored, QuantizedTensor) else stored.dtype
        weights = stored.dequantize() if isinstance(stored, QuantizedTensor) else stored.float()
        return torch.addmm(weights, b, a, alpha=self._adapter.scaling).to(dtype)

    def stored_type(self, name: str) -> str:
        stored = self._base.stored_type(name)
        is_quantized = stored not in SAFETENSORS_DTYPES
        return _TYPE_NAMES[self._dtype] if name in self._updated and is_quantized else stored


def _as_float(data: Tensor, kind: GGMLType) -> Tensor:
    """A view where the file is aligned as the format demands, a copy where it is not."""
    dtype = FLOAT_DTYPES[kind]
    if data.storage_offset() % dtype.itemsize:
        data = data.clone()
    return data.view(dtype)


def _half_split_rows(data: Tensor, rows: int, heads: int) -> Tensor:
    """Undoes the reordering of llama.cpp's converter, which puts the two rows that rotate together side by side.

    Whole rows move, so quantised ones stay as they are. `data`: uint8 [rows, bytes], or [1, bytes] of a bias.
    """
    pairs = rows // heads // 2
    return data.reshape(heads, pairs, 2, -1).transpose(1, 2).reshape(data.shape)


_GGUF_MODULES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _gguf_name(name: str) -> str:
    """model.layers.3.mlp.up_proj.weight -> blk.3.ffn_up.weight"""
    module, _, kind = name.rpartition(".")
    layer = re.match(r"model\.layers\.(\d+)\.", module)
    if layer is None:
        return f"{_GGUF_MODULES[module]}.{kind}"
    return f"blk.{layer[1]}.{_GGUF_MODULES[module[layer.end() :]]}.{kind}"
