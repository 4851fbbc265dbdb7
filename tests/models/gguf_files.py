"""GGUF files of tiny reference models, by the `gguf` package, named and permuted as llama.cpp's converter does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from torch import Tensor
from transformers import PreTrainedModel

ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
QUANTISERS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16", "F32")  # the package can write these

# Where a K-quant block keeps its d and dmin, and values that make random bytes stand for weights around 0.
K_SCALES = {
    "Q2_K": {80: 5e-3, 82: 7.5e-3},
    "Q3_K": {108: 2e-3},
    "Q4_K": {0: 5e-4, 2: 3.75e-3},
    "Q5_K": {0: 2.5e-4, 2: 3.875e-3},
    "Q6_K": {208: 1e-4},
}


def interleave_heads(weights: Tensor, heads: int) -> Tensor:
    """Row i and row i + head_dim / 2 of a head, which rotate together, come to lie side by side."""
    return weights.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weights.shape)


def pack(weights: Tensor, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of type `kind`, and the float32 weights they stand for.

    The package cannot quantise to K-quants: there the bytes are random, with small scales, and the weights theirs.
    """
    type_ = gguf.GGMLQuantizationType[kind]
    if kind in QUANTISERS:
        packed = quantize(weights.numpy(), type_)
        return packed, dequantize(packed, type_)
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[type_]
    rows, blocks = weights.shape[0], weights.shape[1] // per_block
    packed = np.random.default_rng(seed).integers(0, 256, (rows, blocks, block_bytes), dtype=np.uint8)
    for offset, scale in K_SCALES[kind].items():
        packed[..., offset : offset + 2] = np.array([scale], dtype=np.float16).view(np.uint8)
    packed = packed.reshape(rows, blocks * block_bytes)
    return packed, dequantize(packed, type_)


def write_gguf(
    model: PreTrainedModel,
    path: Path,
    kind: str = "F32",
    *,
    arch: str = "llama",
    metadata: dict[str, Any] | None = None,
    rope_factors: list[float] | None = None,
    text: Path | None = None,
) -> None:
    """Writes `model` with its matrices in type `kind`, and gives `model` the weights that the file then holds.

    text: a folder of `write_tiny_model`, whose tokenizer and template the file gets.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    for key, value in (metadata or {}).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(f"{arch}.{key}", value)
    if text is not None:
        _add_text(writer, text)
    names = gguf.get_tensor_name_map(ARCHITECTURES[arch], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(model.named_parameters()):
            own = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert own is not None, name
            permuted = heads.get(name.split(".")[-2]) if arch == "llama" else None
            stored = interleave_heads(parameter, permuted) if permuted else parameter.detach()
            if stored.dim() == 1:
                writer.add_tensor(own, stored.numpy())
                continue
            packed, weights = pack(stored.contiguous(), kind, seed)
            writer.add_tensor(own, packed, raw_dtype=gguf.GGMLQuantizationType[kind])
            restored = torch.from_numpy(np.array(weights))
            if permuted:  # and back: interleaving head_dim / 2 pairs is undone by splitting them again
                restored = restored.unflatten(0, (permuted, -1, 2)).transpose(1, 2).reshape(restored.shape)
            parameter.copy_(restored)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(rope_factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_text(writer: gguf.GGUFWriter, folder: Path) -> None:
    raw, config = (json.loads((folder / f"{name}.json").read_text()) for name in ("tokenizer", "tokenizer_config"))
    special = {token["content"]: token["id"] for token in raw["added_tokens"]}
    ids = raw["model"]["vocab"] | special
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(ids, key=lambda token: ids[token]))
    writer.add_token_types([3 if token in special else 1 for token in sorted(ids, key=lambda token: ids[token])])
    writer.add_eos_token_id(special[config["eos_token"]])
    writer.add_chat_template(config["chat_template"])
