"""The parts of a decoder. Module names are Hugging Face's, so a state dict has the canonical tensor names.

Shapes: B sequences, T tokens, H query heads, K key-value heads, D head_dim.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fireside.kernels.linear import linear
from fireside.models.config import ModelConfig
from fireside.models.rope import apply_rope

Angles = tuple[Tensor, Tensor]  # cosines and sines, float32 [B or 1, T, D / 2]


class Attend(Protocol):
    """How queries meet keys: the seam where an engine puts its cache. Keys come rotated.

    query [B, T, H, D], key and value [B, T, K, D]; returns [B, T, H, D].
    """

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor: ...


class CausalAttention:
    """Each token sees itself and those before it in its row, at most `window` of them."""

    def __init__(self, window: int | None = None) -> None:
        self.window = window

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        tokens = query.shape[1]
        mask = None
        if self.window is not None and tokens > self.window:
            index = torch.arange(tokens, device=query.device)
            distance = index[:, None] - index
            mask = (distance >= 0) & (distance < self.window)
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=True,
        )
        return attended.transpose(1, 2)


class Linear(nn.Linear):
    """PyTorch's, with the faster product, and its first weights are `Decoder.reset_parameters`'s to draw."""

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """PyTorch's, but its first weights are `Decoder.reset_parameters`'s to draw."""

    def reset_parameters(self) -> None:
        pass


class RMSNorm(nn.Module):
    """https://arxiv.org/abs/1910.07467, normalised in float32, scaled in the input's dtype as transformers does."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions, and optional biases and norms of each query and key head."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, queries, bias=config.attention_bias)
        self.k_proj = Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.v_proj = Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.o_proj = Linear(queries, config.hidden_size, bias=config.attention_output_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, angles: Angles, attend: Attend) -> Tensor:
        query = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        key = self.k_proj(x).unflatten(-1, (-1, self.head_dim))
        value = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        attended = attend(self.layer, apply_rope(query, *angles), apply_rope(key, *angles), value)
        out: Tensor = self.o_proj(attended.flatten(-2))
        return out


class SwiGLU(nn.Module):
    """https://arxiv.org/abs/2002.05202"""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class DecoderLayer(nn.Module):
    """Attention, then a feed-forward network, each behind a norm and added to the stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, x: Tensor, angles: Angles, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles, attend)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out
