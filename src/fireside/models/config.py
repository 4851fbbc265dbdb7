"""What a decoder of the Llama family is, in the terms of Hugging Face's `config.json`. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Architecture(StrEnum):
    """Families by their name in `config.json`'s `architectures`."""

    LLAMA = "LlamaForCausalLM"  # Llama 2 and 3.x, SmolLM2
    MISTRAL = "MistralForCausalLM"
    QWEN2 = "Qwen2ForCausalLM"  # Qwen2 and 2.5: biases on q, k and v
    QWEN3 = "Qwen3ForCausalLM"  # RMSNorm on each query and key head


class RopeKind(StrEnum):
    LINEAR = "linear"
    LLAMA3 = "llama3"
    YARN = "yarn"


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies stretch beyond the trained context. Field names are those of transformers."""

    kind: RopeKind
    factor: float
    original_max_position_embeddings: int = 0
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float | None = None  # yarn; None: derived from factor
    mscale: float | None = None  # yarn
    mscale_all_dim: float | None = None  # yarn


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    architecture: Architecture
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False  # on q, k and v
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None  # positions a query sees, itself included; None: all
