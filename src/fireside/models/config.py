"""What a decoder of the Llama family is, in the terms of Hugging Face's `config.json`. Free of torch.

`config_from_hf` and `config_to_hf` read and write `config.json`; `gguf_config.py` reads GGUF metadata. Whatever the
decoder could not compute faithfully (another activation, partial rotary embeddings) is a `ModelError` here, before a
single weight is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fireside.errors import ModelError
from fireside.models.fields import Fields


class Architecture(StrEnum):
    """Families by their name in `config.json`'s `architectures`."""

    LLAMA = "LlamaForCausalLM"  # Llama 2 and 3.x, SmolLM2
    MISTRAL = "MistralForCausalLM"
    QWEN2 = "Qwen2ForCausalLM"  # Qwen2 and 2.5: biases on q, k and v
    QWEN3 = "Qwen3ForCausalLM"  # RMSNorm on each query and key head


class RopeKind(StrEnum):
    """How rotary frequencies are stretched, by transformers' `rope_type`."""

    LINEAR = "linear"
    LLAMA3 = "llama3"
    YARN = "yarn"
    LONGROPE = "longrope"  # a divisor for each frequency; only where the short and the long ones are the same


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
    truncate: bool = True  # yarn: whole-numbered bounds of the ramp
    attention_factor: float | None = None  # yarn; None: derived from factor
    mscale: float | None = None  # yarn
    mscale_all_dim: float | None = None  # yarn
    long_factor: tuple[float, ...] = ()  # longrope: head_dim / 2 divisors. A GGUF's `rope_freqs.weight` is this.

    def is_sound(self, head_dim: int) -> bool:
        """Whether the numbers give every rotated pair of a head a frequency."""
        if not 0 < self.factor < math.inf or not 0 < self.resolved_attention_factor() < math.inf:
            return False
        match self.kind:
            case RopeKind.LINEAR:
                return True
            case RopeKind.LLAMA3:
                ordered = 0 < self.low_freq_factor < self.high_freq_factor < math.inf
                return ordered and self.original_max_position_embeddings > 0
            case RopeKind.YARN:
                ordered = 0 < self.beta_slow <= self.beta_fast < math.inf
                return ordered and self.original_max_position_embeddings > 0
            case RopeKind.LONGROPE:
                divisors = self.long_factor
                return len(divisors) == head_dim // 2 and all(0 < divisor < math.inf for divisor in divisors)

    def resolved_attention_factor(self) -> float:
        """What cosines and sines are multiplied by (YaRN, https://arxiv.org/abs/2309.00071, section 3.4)."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.kind is not RopeKind.YARN:
            return 1.0

        def mscale(weight: float) -> float:
            return 1.0 if self.factor <= 1 else 0.1 * weight * math.log(self.factor) + 1.0

        if self.mscale and self.mscale_all_dim:
            return mscale(self.mscale) / mscale(self.mscale_all_dim)
        return mscale(1.0)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one model. Raises `ModelError` for a shape that cannot be."""

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

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if not 0 < value <= largest:
                raise ModelError(f"the model's {name} is {value}; it must lie between 1 and {largest:,}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ModelError(
                f"the model has {self.num_attention_heads} attention heads over {self.num_key_value_heads} "
                f"key-value heads; the first must be a multiple of the second"
            )
        if self.head_dim % 2:
            raise ModelError(f"the model's head_dim is {self.head_dim}; rotary embeddings need an even one")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ModelError(f"the model's sliding_window is {self.sliding_window}; it must be at least 1, or absent")
        if not (0 < self.rms_norm_eps < 1 and 1 < self.rope_theta < math.inf):
            raise ModelError(
                f"the model's rms_norm_eps ({self.rms_norm_eps}) or rope_theta ({self.rope_theta}) cannot be right"
            )
        if self.rope_scaling is not None and not self.rope_scaling.is_sound(self.head_dim):
            raise ModelError(f"the model's rope scaling cannot be right: {self.rope_scaling}")


# Beyond these a number is damage, and believing it would cost time and memory before the weights disprove it.
_LARGEST = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_hidden_layers": 1 << 12,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 12,
    "max_position_embeddings": 1 << 30,
}

_MODEL_TYPES = {
    "llama": Architecture.LLAMA,
    "mistral": Architecture.MISTRAL,
    "qwen2": Architecture.QWEN2,
    "qwen3": Architecture.QWEN3,
}
SUPPORTED = "supported: " + ", ".join(f"{family} ({kind})" for kind, family in _MODEL_TYPES.items())

# What transformers assumes where config.json is silent, where that differs between the families.
_DEFAULT_CONTEXT = {Architecture.LLAMA: 2048, Architecture.MISTRAL: 131072}
_DEFAULT_KV_HEADS = {Architecture.MISTRAL: 8, Architecture.QWEN2: 32, Architecture.QWEN3: 32}


def config_from_hf(raw: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
    """Reads a parsed `config.json`, as transformers 5 writes it (`rope_parameters`) or older ones (`rope_scaling`).

    Raises `ModelError`, beginning with `source`, for a family or a feature that the decoder does not compute.
    """
    fields = Fields(raw, source)
    architecture = _hf_architecture(fields)
    hidden_act = fields.text("hidden_act", "silu")
    if hidden_act not in ("silu", "swish"):
        raise ModelError(f"{source}: hidden_act {hidden_act!r} is not supported; supported: silu")
    if raw.get("quantization_config"):
        method = Fields(raw["quantization_config"], source).text("quant_method", "unknown")
        raise ModelError(
            f"{source}: weights quantised by {method!r} are not supported in safetensors; "
            "take the unquantised model, or a GGUF of it"
        )
    heads, layers = fields.integer("num_attention_heads"), fields.integer("num_hidden_layers")
    hidden_size = fields.integer("hidden_size")
    if heads < 1:
        raise ModelError(f"{source}: num_attention_heads is {heads}; it must be at least 1")
    # A key that is present and null means "as many as attention heads" in every family; an absent one differs.
    kv_default = heads if "num_key_value_heads" in raw else _DEFAULT_KV_HEADS.get(architecture, heads)
    max_positions = fields.integer("max_position_embeddings", _DEFAULT_CONTEXT.get(architecture, 32768))
    rope_theta, rope_scaling = _hf_rope(fields, max_positions)
    qwen = architecture in (Architecture.QWEN2, Architecture.QWEN3)
    bias = architecture is not Architecture.MISTRAL and fields.boolean("attention_bias", False)
    try:
        return ModelConfig(
            architecture=architecture,
            vocab_size=fields.integer("vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=fields.integer("intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=fields.integer("num_key_value_heads", kv_default),
            head_dim=fields.integer("head_dim", 128 if architecture is Architecture.QWEN3 else hidden_size // heads),
            max_position_embeddings=max_positions,
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            tie_word_embeddings=fields.boolean("tie_word_embeddings", False),
            attention_bias=bias or architecture is Architecture.QWEN2,
            attention_output_bias=bias and architecture is not Architecture.QWEN2,
            mlp_bias=architecture is Architecture.LLAMA and fields.boolean("mlp_bias", False),
            qk_norm=architecture is Architecture.QWEN3,
            sliding_window=_qwen_window(fields, layers) if qwen else _mistral_window(fields, architecture),
        )
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None


def _hf_architecture(fields: Fields) -> Architecture:
    names = fields.values.get("architectures")
    if isinstance(names, list) and names:
        try:
            return Architecture(names[0])
        except ValueError:
            raise ModelError(f"{fields.source}: architecture {names[0]!r} is not supported; {SUPPORTED}") from None
    model_type = fields.text("model_type", "")
    if model_type not in _MODEL_TYPES:
        raise ModelError(f"{fields.source}: model type {model_type!r} is not supported; {SUPPORTED}")
    return _MODEL_TYPES[model_type]


def _mistral_window(fields: Fields, architecture: Architecture) -> int | None:
    if architecture is not Architecture.MISTRAL:
        return None
    return fields.optional_integer("sliding_window") if "sliding_window" in fields.values else 4096


def _qwen_window(fields: Fields, layers: int) -> int | None:
    """Qwen can let its last layers slide. Every released model has all layers alike, and so has `ModelConfig`."""
    if not fields.boolean("use_sliding_window", False):
        return None
    types = fields.values.get("layer_types")
    if types is None:
        first = fields.integer("max_window_layers", 28)
        types = ["sliding_attention" if layer >= first else "full_attention" for layer in range(min(layers, 1 << 12))]
    match sorted(set(types)):
        case ["full_attention"]:
            return None
        case ["sliding_attention"]:
            return fields.integer("sliding_window", 4096)
    raise ModelError(f"{fields.source}: layers of both sliding and full attention in one model are not supported")


def _hf_rope(fields: Fields, max_positions: int) -> tuple[float, RopeScaling | None]:
    raw = fields.values.get("rope_parameters") or fields.values.get("rope_scaling") or {}
    if not isinstance(raw, dict):
        raise ModelError(f"{fields.source}: rope_parameters is {raw!r}; it must be an object")
    rope = Fields(raw, f"{fields.source}, rope_parameters")
    theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0))
    if rope.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0)) != 1.0:
        raise ModelError(f"{fields.source}: partial rotary embeddings are not supported")
    name = rope.text("rope_type", rope.text("type", "default"))
    if name == "default":
        return theta, None
    if name not in list(RopeKind):
        supported = ", ".join(["default", *RopeKind])
        raise ModelError(f"{fields.source}: rope type {name!r} is not supported; supported: {supported}")
    kind = RopeKind(name)
    # Where both exist transformers lets the outer one win (Phi's habit).
    original = fields.integer(
        "original_max_position_embeddings", rope.integer("original_max_position_embeddings", max_positions)
    )
    factor = rope.optional_number("factor")
    if factor is None and kind in (RopeKind.YARN, RopeKind.LONGROPE) and original > 0:
        factor = max_positions / original
    if factor is None:
        factor = rope.number("factor")
    match kind:
        case RopeKind.LINEAR:
            scaling = RopeScaling(kind=kind, factor=factor)
        case RopeKind.LLAMA3:
            scaling = RopeScaling(
                kind=kind,
                factor=factor,
                original_max_position_embeddings=original,
                low_freq_factor=rope.number("low_freq_factor"),
                high_freq_factor=rope.number("high_freq_factor"),
            )
        case RopeKind.YARN:
            scaling = RopeScaling(
                kind=kind,
                factor=factor,
                original_max_position_embeddings=original,
                beta_fast=rope.number("beta_fast", 32.0) or 32.0,  # 0 is "not given" to transformers
                beta_slow=rope.number("beta_slow", 1.0) or 1.0,
                truncate=rope.boolean("truncate", True),
                attention_factor=rope.optional_number("attention_factor"),
                mscale=rope.optional_number("mscale"),
                mscale_all_dim=rope.optional_number("mscale_all_dim"),
            )
        case RopeKind.LONGROPE:
            if rope.number("attention_factor") != 1.0:
                raise ModelError(f"{fields.source}: rope type 'longrope' is supported with attention_factor 1 only")
            scaling = RopeScaling(kind=kind, factor=factor, long_factor=_equal_factors(rope))
    return theta, scaling


def _equal_factors(rope: Fields) -> tuple[float, ...]:
    short, long = rope.values.get("short_factor"), rope.values.get("long_factor")
    if short != long or not isinstance(long, list) or not all(isinstance(item, int | float) for item in long):
        raise ModelError(f"{rope.source}: 'longrope' is supported where short_factor and long_factor are the same")
    return tuple(float(item) for item in long)


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model, for transformers 5 and, by the older names of the rope values, what came before.

    Raises `ModelError` where the family of that name cannot have the config's biases, norms or window.
    """
    raw: dict[str, Any] = {
        "architectures": [str(config.architecture)],
        "model_type": next(kind for kind, family in _MODEL_TYPES.items() if family is config.architecture),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    rope = _rope_to_hf(config)
    raw["rope_parameters"] = {"rope_type": "default", **rope, "rope_theta": config.rope_theta}
    if rope:
        raw["rope_scaling"] = rope
    match config.architecture:
        case Architecture.LLAMA:
            raw |= {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}
        case Architecture.MISTRAL:
            raw["sliding_window"] = config.sliding_window
        case Architecture.QWEN2 | Architecture.QWEN3:
            raw |= {
                "use_sliding_window": config.sliding_window is not None,
                "sliding_window": config.sliding_window,
                "max_window_layers": config.num_hidden_layers if config.sliding_window is None else 0,
            }
            if config.architecture is Architecture.QWEN3:
                raw["attention_bias"] = config.attention_bias
    if config_from_hf(raw) != config:
        raise ModelError(f"{config.architecture} cannot have this model's biases, norms or sliding window")
    return raw


def _rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    if scaling is None:
        return {}
    rope: dict[str, Any] = {"rope_type": str(scaling.kind), "factor": scaling.factor}
    if scaling.kind in (RopeKind.LLAMA3, RopeKind.YARN):
        rope["original_max_position_embeddings"] = scaling.original_max_position_embeddings
    match scaling.kind:
        case RopeKind.LLAMA3:
            rope |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
        case RopeKind.YARN:
            rope |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate}
            for name in ("attention_factor", "mscale", "mscale_all_dim"):
                if (value := getattr(scaling, name)) is not None:
                    rope[name] = value
        case RopeKind.LONGROPE:
            factors = list(scaling.long_factor)
            rope |= {"short_factor": factors, "long_factor": factors, "attention_factor": 1.0}
            rope["original_max_position_embeddings"] = config.max_position_embeddings
    return rope
