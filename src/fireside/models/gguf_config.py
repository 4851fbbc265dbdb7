"""`ModelConfig` from the metadata of a GGUF file. Free of torch.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from fireside.errors import ModelError
from fireside.gguf import GGMLType, GGUFFile, TensorInfo
from fireside.models.config import Architecture, ModelConfig, RopeKind, RopeScaling
from fireside.models.fields import Fields

# Mistral is stored as llama.
_GGUF_ARCHITECTURES = {"llama": Architecture.LLAMA, "qwen2": Architecture.QWEN2, "qwen3": Architecture.QWEN3}


def config_from_gguf(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo] | None = None,
    *,
    frequency_factors: tuple[float, ...] = (),
    source: str = "GGUF metadata",
) -> ModelConfig:
    """Reads the metadata of the GGUF architectures llama, qwen2 and qwen3.

    `tensors` is the file's directory: without it, ties and biases (which GGUF keeps nowhere else) are the family's
    usual ones. `frequency_factors` are the values of `rope_freqs.weight`, where Llama 3's scaling is kept.
    `config_from_gguf_file` passes both. Raises `ModelError`, beginning with `source`.
    """
    arch = Fields(metadata, source).text("general.architecture", "")
    if arch not in _GGUF_ARCHITECTURES:
        supported = ", ".join(_GGUF_ARCHITECTURES)
        raise ModelError(f"{source}: architecture {arch!r} is not supported; supported: {supported}")
    fields = Fields({key.removeprefix(f"{arch}."): _uniform(value) for key, value in metadata.items()}, source)
    if fields.integer("expert_count", 0):
        raise ModelError(f"{source}: mixtures of experts are not supported")
    architecture = _GGUF_ARCHITECTURES[arch]
    # Of the families stored as llama only Mistral has a window.
    window = fields.optional_integer("attention.sliding_window") if architecture is Architecture.LLAMA else None
    if window is not None:
        architecture = Architecture.MISTRAL
    heads, hidden_size = fields.integer("attention.head_count"), fields.integer("embedding_length")
    if heads < 1:
        raise ModelError(f"{source}: attention.head_count is {heads}; it must be at least 1")
    head_dim = fields.integer("attention.key_length", hidden_size // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if fields.integer(key, head_dim) != head_dim:
            raise ModelError(f"{source}: {key} {fields.integer(key)} with heads of {head_dim} is not supported")
    known = tensors or {}
    embedding = known.get("token_embd.weight")
    vocab_size = embedding.shape[0] if embedding else fields.integer("vocab_size", _count_tokens(metadata))
    try:
        return ModelConfig(
            architecture=architecture,
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=fields.integer("feed_forward_length"),
            num_hidden_layers=fields.integer("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=fields.integer("attention.head_count_kv", heads),
            head_dim=head_dim,
            max_position_embeddings=fields.integer("context_length"),
            rms_norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
            rope_theta=fields.number("rope.freq_base", 10000.0),
            rope_scaling=_gguf_rope(fields, frequency_factors),
            tie_word_embeddings=tensors is not None and "output.weight" not in known,
            attention_bias=architecture is Architecture.QWEN2 or "blk.0.attn_q.bias" in known,
            attention_output_bias="blk.0.attn_output.bias" in known,
            mlp_bias="blk.0.ffn_gate.bias" in known,
            qk_norm=architecture is Architecture.QWEN3,
            sliding_window=window,
        )
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None


def config_from_gguf_file(file: GGUFFile) -> ModelConfig:
    """The config of an open GGUF file, from its metadata, its directory and its `rope_freqs.weight`."""
    factors: tuple[float, ...] = ()
    if (info := file.tensors.get("rope_freqs.weight")) is not None:
        if info.type is not GGMLType.F32 or len(info.shape) != 1:
            raise ModelError(
                f"{file.path}: tensor rope_freqs.weight is {info.type.name} {info.shape}, not an F32 vector"
            )
        factors = struct.unpack_from(f"<{info.shape[0]}f", file.data, info.offset)
    return config_from_gguf(file.metadata, file.tensors, frequency_factors=factors, source=str(file.path))


def _uniform(value: Any) -> Any:
    """Per-layer values are lists in GGUF; where every layer has the same, that one value."""
    same = isinstance(value, list) and value and all(item == value[0] for item in value)
    return value[0] if same else value


def _count_tokens(metadata: Mapping[str, Any]) -> int | None:
    tokens = metadata.get("tokenizer.ggml.tokens")
    return len(tokens) if isinstance(tokens, list) else None


def _gguf_rope(fields: Fields, frequency_factors: tuple[float, ...]) -> RopeScaling | None:
    name = fields.text("rope.scaling.type", "none")
    if name == "none" and frequency_factors:
        return RopeScaling(kind=RopeKind.LONGROPE, factor=max(frequency_factors), long_factor=frequency_factors)
    # The first converters wrote rope.scale_linear alone.
    factor = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0))
    if name == "linear" or (name == "none" and factor != 1.0):
        return RopeScaling(kind=RopeKind.LINEAR, factor=factor)
    if name == "none":
        return None
    if name != "yarn":
        raise ModelError(f"{fields.source}: rope scaling {name!r} is not supported; supported: none, linear, yarn")
    return RopeScaling(
        kind=RopeKind.YARN,
        factor=factor,
        original_max_position_embeddings=fields.integer(
            "rope.scaling.original_context_length", fields.integer("context_length")
        ),
        beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=fields.optional_number("rope.scaling.yarn_attn_factor"),
    )
