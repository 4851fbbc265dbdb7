"""Configs against transformers' reading of them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import AutoConfig

from fireside.errors import ModelError
from fireside.models.config import Architecture, ModelConfig, RopeKind, RopeScaling, config_from_hf, config_to_hf
from fireside.models.gguf_config import config_from_gguf
from tests.models.families import FAMILIES, reference

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "factor": 8.0,
    "attention_factor": 1.0,
    "short_factor": [1.0] * 7,  # head_dim 16 has eight pairs
    "long_factor": [1.0] * 7,
}
GGUF: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": 100,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_we_write_transformers_reads_as_the_same(family: str) -> None:
    theirs = reference(family).config
    config = config_from_hf(theirs.to_dict())
    raw = config_to_hf(config)
    assert config_from_hf(raw) == config
    again = AutoConfig.for_model(**raw)
    assert config_from_hf(again.to_dict()) == config
    defaults = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}  # transformers leaves these out, we write them
    assert defaults | again.rope_parameters == defaults | theirs.rope_parameters


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_silence_means_what_transformers_takes_it_for(model_type: str) -> None:
    sizes = {"vocab_size": 100, "hidden_size": 4096, "intermediate_size": 96, "num_hidden_layers": 2}
    raw = {"model_type": model_type, **sizes, "num_attention_heads": 32}
    assert config_from_hf(raw) == config_from_hf(AutoConfig.for_model(**raw).to_dict())


def test_rope_by_its_names_before_transformers_5() -> None:
    old = LLAMA | {
        "rope_theta": 500000.0,
        "max_position_embeddings": 131072,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    }
    config = config_from_hf(old)
    assert config.rope_theta == 500000.0
    assert config.rope_scaling == RopeScaling(
        kind=RopeKind.LLAMA3, factor=8.0, original_max_position_embeddings=8192, high_freq_factor=4.0
    )
    linear = config_from_hf(LLAMA | {"rope_scaling": {"type": "linear", "factor": 2}})
    assert linear.rope_scaling == RopeScaling(kind=RopeKind.LINEAR, factor=2.0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "'GemmaForCausalLM' is not supported; supported: LlamaForCausalLM"),
        ({"architectures": [], "model_type": "gpt2"}, "model type 'gpt2' is not supported; supported: Llama"),
        ({"vocab_size": None}, "has no vocab_size"),
        ({"vocab_size": "many"}, "vocab_size is 'many'; it must be a whole number"),
        ({"hidden_size": True}, "hidden_size is True; it must be a whole number"),
        ({"hidden_size": -64}, "hidden_size is -64; it must lie between 1 and"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; it must lie between"),
        ({"num_key_value_heads": 3}, "4 attention heads over 3 key-value heads"),
        ({"head_dim": 15}, "head_dim is 15; rotary embeddings need an even one"),
        ({"rms_norm_eps": 0}, "rms_norm_eps"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised by 'awq' are not supported"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope type 'dynamic' is not supported; supported: default"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope_parameters has no factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "scaling cannot be right.*factor=0.0"),
        ({"rope_parameters": {"rope_theta": 1.0}}, r"rope_theta \(1.0\) cannot be right"),
        ({"rope_parameters": YARN | {"beta_slow": 40}}, "scaling cannot be right.*beta_slow=40"),
        ({"rope_parameters": YARN | {"original_max_position_embeddings": -1}}, "scaling cannot be right"),
        ({"rope_parameters": YARN | {"mscale": -20.0, "mscale_all_dim": 1.0}}, "scaling cannot be right"),
        ({"rope_parameters": LLAMA3 | {"low_freq_factor": 4.0}}, "scaling cannot be right.*low_freq_factor=4.0"),
        ({"rope_parameters": LONGROPE | {"long_factor": [1.0] * 8}}, "where short_factor and long_factor are the same"),
        ({"rope_parameters": LONGROPE}, "scaling cannot be right"),
        ({"rope_parameters": ["linear"]}, r"rope_parameters is \['linear'\]; it must be an object"),
        ({"partial_rotary_factor": 0.5}, "partial rotary"),
    ],
)
def test_what_cannot_be_computed_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelError, match=rf"^some/config\.json.*{complaint}"):
        config_from_hf(LLAMA | change, "some/config.json")


def test_mixed_windows_are_refused_and_uniform_ones_read() -> None:
    qwen = LLAMA | {"architectures": ["Qwen3ForCausalLM"], "num_key_value_heads": 2, "sliding_window": 16}
    assert config_from_hf(qwen).sliding_window is None
    window = qwen | {"use_sliding_window": True}
    assert config_from_hf(window | {"max_window_layers": 2}).sliding_window is None
    assert config_from_hf(window | {"max_window_layers": 0}).sliding_window == 16
    with pytest.raises(ModelError, match="both sliding and full attention"):
        config_from_hf(window | {"max_window_layers": 1})


def test_a_shape_that_the_family_cannot_have_is_not_written() -> None:
    config = config_from_hf(LLAMA)
    with pytest.raises(ModelError, match="LlamaForCausalLM cannot have"):
        config_to_hf(replace(config, qk_norm=True))
    with pytest.raises(ModelError, match="LlamaForCausalLM cannot have"):
        config_to_hf(replace(config, sliding_window=8))


def test_zero_betas_are_absent_ones_as_in_transformers() -> None:
    config = config_from_hf(LLAMA | {"rope_parameters": YARN | {"beta_fast": 0, "beta_slow": 0}})
    assert config == config_from_hf(LLAMA | {"rope_parameters": YARN})


def test_gguf_metadata_alone() -> None:
    config = config_from_gguf(GGUF)
    assert config == ModelConfig(
        architecture=Architecture.LLAMA,
        vocab_size=100,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        max_position_embeddings=64,
    )
    assert config_from_gguf(GGUF | {"llama.attention.head_count_kv": [2, 2]}).num_key_value_heads == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"general.architecture": "gemma"}, "architecture 'gemma' is not supported; supported: llama, qwen2, qwen3"),
        ({"llama.expert_count": 8}, "mixtures of experts"),
        ({"llama.attention.head_count_kv": [2, 4]}, r"head_count_kv is \[2, 4\]"),
        ({"llama.attention.head_count": 0}, "head_count is 0"),
        ({"llama.rope.dimension_count": 8}, "rope.dimension_count 8 with heads of 16"),
        ({"llama.rope.scaling.type": "longrope"}, "rope scaling 'longrope' is not supported"),
        ({"llama.block_count": 2.5}, "block_count is 2.5"),
    ],
)
def test_gguf_metadata_that_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        config_from_gguf(GGUF | change)
