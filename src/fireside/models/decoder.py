"""The decoder Transformer of the Llama family: one model, told apart by its config alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fireside.models.checkpoint import Checkpoint
from fireside.models.config import ModelConfig
from fireside.models.layers import Attend, CausalAttention, DecoderLayer, Embedding, Linear, RMSNorm
from fireside.models.quantization import QuantizedTensor
from fireside.models.quantized_layers import QuantizedEmbedding, QuantizedLinear
from fireside.models.rope import rope_angles, rope_frequencies


class Transformer(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        # Not buffers: `decoder.to(torch.bfloat16)` would round them, and far positions would turn to noise.
        self.frequencies, self.attention_factor = rope_frequencies(config)

    def forward(self, input_ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        x: Tensor = self.embed_tokens(input_ids)
        self.frequencies = self.frequencies.to(x.device)
        angles = rope_angles(positions, self.frequencies, self.attention_factor)
        for layer in self.layers:
            x = layer(x, angles, attend)
        normed: Tensor = self.norm(x)
        return normed


class Decoder(nn.Module):
    """Token ids to logits. The state dict has exactly the names and shapes of `checkpoint.expected_shapes`.

    A new decoder holds random weights fit to train from; `load_decoder` makes one from a checkpoint.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        # A tied head is the embedding itself, under no second name.
        self.lm_head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size, bias=False)
        if self.device.type != "meta":  # where drawing draws nothing, and PyTorch takes a second to get ready for it
            self.reset_parameters()

    def reset_parameters(self, std: float = 0.02) -> None:
        """Draws weights anew: matrices normal, the projections into the residual stream scaled down by its depth
        (GPT-2, section 2.3), biases 0, norms 1."""
        residual_std = std / (2 * self.config.num_hidden_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 1:
                nn.init.ones_(parameter)
            else:
                into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=residual_std if into_stream else std)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits [B, T, vocab_size] for whole sequences `input_ids` [B, T], causally."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        return self.logits(self.hidden_states(input_ids, positions, CausalAttention(self.config.sliding_window)))

    def hidden_states(self, input_ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """The final, normalised states [B, T, hidden_size] for `input_ids` [B, T] at `positions` [B or 1, T]."""
        states: Tensor = self.model(input_ids, positions, attend)
        return states

    def logits(self, hidden_states: Tensor) -> Tensor:
        """[..., hidden_size] to [..., vocab_size], in the weights' dtype."""
        return F.linear(hidden_states, self.head_weight)

    @property
    def head_weight(self) -> Tensor:
        """[vocab_size, hidden_size]; made at each call where it is quantised."""
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        return head.weight

    @property
    def dtype(self) -> torch.dtype:
        return self.model.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.model.norm.weight.device


def load_decoder(
    checkpoint: Checkpoint,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    keep_quantized: bool = False,
) -> Decoder:
    """A decoder with the checkpoint's weights, dequantised where they are quantised, or with `keep_quantized` in
    layers of `quantized_layers.py`, which cannot train.

    Memory: the decoder's own, and one tensor (of a quantised one a chunk) of the mapped file at a time.
    Raises `ModelError` naming the tensor if one holds NaN or infinity, which damage looks like.
    """
    with torch.device("meta"):
        decoder = Decoder(checkpoint.config)
    for name in checkpoint.names:
        stored = checkpoint.tensor(name)
        owner, _, attribute = name.rpartition(".")
        if keep_quantized and isinstance(stored, QuantizedTensor):
            for _, chunk in stored.chunks():
                checkpoint.check_finite(name, chunk)
            stored = stored.to(device)
            is_embedding = isinstance(decoder.get_submodule(owner), Embedding)
            decoder.set_submodule(owner, QuantizedEmbedding(stored) if is_embedding else QuantizedLinear(stored))
            continue
        weights = torch.empty(checkpoint.shapes[name], dtype=dtype, device=device)
        if isinstance(stored, QuantizedTensor):
            stored.dequantize_into(weights)
        else:
            weights.copy_(stored)
        checkpoint.check_finite(name, weights)
        setattr(decoder.get_submodule(owner), attribute, nn.Parameter(weights))
    return decoder
