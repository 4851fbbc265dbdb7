"""Tiny random models of every supported family, made by transformers: what ours is compared with."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import Decoder, load_decoder

VOCAB_SIZE = 128
SEQUENCE_LENGTH = 48  # longer than every window and original context below

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def _rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **values}}


_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
_YARN = {"factor": 4.0, "original_max_position_embeddings": 16}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama2": {"model_type": "llama", "num_key_value_heads": 4},
    "llama3": {"model_type": "llama", **_rope("llama3", **_LLAMA3)},
    "llama-linear": {"model_type": "llama", **_rope("linear", factor=2.0)},
    "llama-yarn": {"model_type": "llama", **_rope("yarn", **_YARN)},
    "llama-yarn-mscale": {
        "model_type": "llama",
        **_rope("yarn", **_YARN, mscale=1.0, mscale_all_dim=0.7, beta_fast=16.0, truncate=False),
    },
    "llama-biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama-wide-heads": {"model_type": "llama", "head_dim": 24},
    "smollm2": {"model_type": "llama", "tie_word_embeddings": True, **_rope("default", rope_theta=100000.0)},
    "mistral": {"model_type": "mistral", "sliding_window": 8},
    "mistral-no-window": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, **_rope("default", rope_theta=1000000.0)},
    "qwen2-window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
    "qwen3": {"model_type": "qwen3", "head_dim": 32, **_rope("default", rope_theta=1000000.0)},
    "qwen3-yarn": {"model_type": "qwen3", "attention_bias": True, **_rope("yarn", **_YARN)},
}


@cache
def reference(family: str, **shape: int) -> PreTrainedModel:
    """transformers' own model of that family, in float32. Weights are large enough that every part of it matters."""
    values = _SHAPE | FAMILIES[family] | shape
    config = AutoConfig.for_model(**values, attn_implementation="eager")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=1.5 / parameter.shape[1] ** 0.5)
    return model


@torch.no_grad()
def reference_logits(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids).logits
    assert logits.std() > 0.5, "too tame to tell models apart"
    return logits


def random_ids(rows: int = 2, tokens: int = SEQUENCE_LENGTH, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def ours(model: PreTrainedModel, folder: Path) -> Decoder:
    """The same model, by way of the folder that transformers writes."""
    model.save_pretrained(folder)
    return load_decoder(open_checkpoint(folder))
