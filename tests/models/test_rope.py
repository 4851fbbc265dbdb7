"""Rotary frequencies of the released models' own configs against transformers' functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from fireside.models.config import config_from_hf
from fireside.models.rope import apply_rope, rope_angles, rope_frequencies

CONFIGS: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        "head_dim": 64,
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "qwen2.5-yarn": {
        "head_dim": 128,
        "rope_type": "yarn",
        "rope_theta": 1000000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    },
    "yarn-attention-factor": {
        "head_dim": 64,
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 4096,
        "attention_factor": 0.9,
        "beta_fast": 64.0,
        "beta_slow": 2.0,
    },
    "yarn-mscale": {
        "head_dim": 64,
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 1.0,
        "mscale_all_dim": 0.8,
        "truncate": False,
    },
    "yarn-step": {  # both bounds of the ramp fall on pair 0
        "head_dim": 64,
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "original_max_position_embeddings": 2,
    },
    "linear": {"head_dim": 128, "rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "longrope": {
        "head_dim": 8,
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 1024,
        "short_factor": [1.0, 1.5, 4.0, 8.0],
        "long_factor": [1.0, 1.5, 4.0, 8.0],
        "attention_factor": 1.0,
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    rope = dict(CONFIGS[name])
    config = AutoConfig.for_model(
        "llama",
        head_dim=rope.pop("head_dim"),
        max_position_embeddings=131072,
        rope_parameters=rope,
    )
    expected, scale = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, torch.device("cpu"))
    frequencies, attention_factor = rope_frequencies(config_from_hf(config.to_dict()))
    assert frequencies.dtype == torch.float32
    torch.testing.assert_close(frequencies, expected, rtol=2e-6, atol=0)
    assert attention_factor == pytest.approx(scale, rel=1e-12)


def test_products_of_rotated_vectors_depend_on_their_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 16, generator=generator, dtype=torch.float32)
    frequencies = 1.0 / 100.0 ** (torch.arange(8) / 8)

    def rotated(vector: torch.Tensor, position: int) -> torch.Tensor:
        return apply_rope(vector, *rope_angles(torch.tensor(position), frequencies, 1.0))

    products = [(rotated(query, start + 5) * rotated(key, start)).sum() for start in (0, 3, 70)]
    torch.testing.assert_close(products[1], products[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(products[2], products[0], rtol=1e-4, atol=1e-4)
    assert not torch.isclose((rotated(query, 6) * rotated(key, 0)).sum(), products[0], rtol=1e-2)
    torch.testing.assert_close(rotated(query, 0), query)
