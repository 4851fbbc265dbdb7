"""Rotary position embeddings (https://arxiv.org/abs/2104.09864) and the ways of stretching them to longer contexts.

Pairs are dimension i with i + head_dim / 2, Hugging Face's layout.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fireside.models.config import ModelConfig, RopeKind, RopeScaling


def rope_frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Angle per position of each rotated pair: float32 [head_dim / 2] on the CPU.

    The second value multiplies cosines and sines (1 for everything but YaRN).
    """
    dim = config.head_dim
    # The device is named so that building a model on the meta device still computes real numbers here.
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies, 1.0
    match scaling.kind:
        case RopeKind.LINEAR:
            frequencies = frequencies / scaling.factor
        case RopeKind.LLAMA3:
            frequencies = _llama3(frequencies, scaling)
        case RopeKind.YARN:
            frequencies = _yarn(frequencies, scaling, config.rope_theta)
        case RopeKind.LONGROPE:
            frequencies = frequencies / torch.tensor(scaling.long_factor, dtype=torch.float32, device="cpu")
    return frequencies, scaling.resolved_attention_factor()


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: slow pairs are divided by the factor, fast ones kept, those between blended by wavelength."""
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)  # within the trained context
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0.0, 1.0)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def _yarn(frequencies: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    """YaRN (https://arxiv.org/abs/2309.00071): as llama3, but blended linearly in the pair's index."""
    pairs = frequencies.numel()

    def pair_with_turns(turns: float) -> float:
        """The index, fractional, of the pair that turns so many times within the trained context."""
        return pairs * math.log(scaling.original_max_position_embeddings / (turns * 2 * math.pi)) / math.log(theta)

    first, last = pair_with_turns(scaling.beta_fast), pair_with_turns(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    width = last - first or 0.001  # both bounds on one pair: a step, not a division by zero
    stretched = ((torch.arange(pairs, dtype=torch.float32, device="cpu") - first) / width).clamp(0.0, 1.0)
    return stretched * frequencies / scaling.factor + (1 - stretched) * frequencies


def rope_angles(positions: Tensor, frequencies: Tensor, attention_factor: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `positions` [...]: two float32 tensors [..., head_dim / 2]."""
    angles = positions[..., None].to(torch.float32) * frequencies
    return angles.cos() * attention_factor, angles.sin() * attention_factor


def apply_rope(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates `heads` [..., num_heads, head_dim] by angles [..., head_dim / 2], in float32, back to its own dtype."""
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    first, second = heads.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(heads.dtype)
