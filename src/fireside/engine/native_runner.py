"""`NativeRunner`: the CPU's default. Weights stay in the type they are stored in; one native call is one step.

Batch-invariant by construction: activations are quantised per token, integer products are exact in any order, and
every floating-point sum (norms, group scales, attention) has one order that does not depend on the batch.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from fireside.engine.runner import ForwardBatch
from fireside.kernels.cpu.library import BLOCK_SIZE, DecoderShape, LayerWeights, NativeDecoder, load_library
from fireside.kernels.cpu.packing import PackedMatrix, pack_float, pack_quantized
from fireside.models.checkpoint import Checkpoint
from fireside.models.config import ModelConfig
from fireside.models.quantization import QuantizedTensor
from fireside.models.rope import rope_angles, rope_frequencies

_PROJECTIONS = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
    "output": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
_NORMS = {
    "attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm",
    "query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm",
}  # fmt: skip


def native_shape(config: ModelConfig) -> DecoderShape:
    """The config in the native decoder's terms; its `unsupported()` tells whether the kernels can run it."""
    return DecoderShape(
        hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        heads=config.num_attention_heads, kv_heads=config.num_key_value_heads, head_dim=config.head_dim,
        vocab_size=config.vocab_size, rms_norm_eps=config.rms_norm_eps, sliding_window=config.sliding_window,
    )  # fmt: skip


class NativeRunner:
    """Implements `Runner` over `kernels/cpu`.

    `dtype`: None keeps each matrix as it is stored; float32 or bfloat16 converts all of them.
    `cache_dtype`: of keys and values; float32, bfloat16, or int8 with a scale per token and head.

    Raises `ModelError` naming the tensor if one holds NaN or infinity, `NativeUnavailable` for what cannot run here.
    """

    backend = "native"
    device = "cpu"
    batch_invariant = True
    block_size = BLOCK_SIZE

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        num_blocks: int,
        max_context: int,
        threads: int,
        dtype: torch.dtype | None = None,
        cache_dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        config = checkpoint.config
        self.num_blocks = num_blocks
        self.vocab_size = config.vocab_size
        self.dtype = str(dtype).removeprefix("torch.") if dtype else checkpoint.weight_type
        present = set(checkpoint.names)

        def matrix(name: str) -> PackedMatrix:
            weight = checkpoint.tensor(name)
            if isinstance(weight, QuantizedTensor):
                if dtype is None:
                    tiles = pack_quantized(weight.data, weight.type, weight.shape)
                    for numbers in tiles.tensors:
                        if numbers.is_floating_point():
                            checkpoint.check_finite(name, numbers)
                    return tiles
                weight = weight.dequantize(dtype)
            checkpoint.check_finite(name, weight)
            return pack_float(weight if dtype is None else weight.to(dtype))

        def vector(name: str) -> Tensor | None:
            if name not in present:
                return None
            values = checkpoint.tensor(name)
            assert isinstance(values, Tensor)
            checkpoint.check_finite(name, values)
            return values.to(torch.float32).contiguous()

        wanted = [name for name in checkpoint.names if len(checkpoint.shapes[name]) == 2]
        with ThreadPoolExecutor(threads, thread_name_prefix="packing") as pool:
            packed = dict(zip(wanted, pool.map(matrix, wanted), strict=True))
        layers = []
        for index in range(config.num_hidden_layers):
            prefix = f"model.layers.{index}."
            matrices = {key: packed[f"{prefix}{name}.weight"] for key, name in _PROJECTIONS.items()}
            biases = {f"{key}_bias": vector(f"{prefix}{name}.bias") for key, name in _PROJECTIONS.items()}
            norms = {key: vector(f"{prefix}{name}.weight") for key, name in _NORMS.items()}
            layers.append(LayerWeights(**matrices, **biases, **norms))  # type: ignore[arg-type]
        embedding = packed["model.embed_tokens.weight"]
        head = packed.get("lm_head.weight", embedding)
        final_norm = vector("model.norm.weight")
        assert final_norm is not None
        frequencies, scale = rope_frequencies(config)
        positions = torch.arange(min(max_context, num_blocks * BLOCK_SIZE))  # the cache holds no more
        cosines, sines = rope_angles(positions, frequencies, scale)
        self._decoder = NativeDecoder(
            native_shape(config), layers, embedding, head, final_norm, cosines.contiguous(), sines.contiguous(),
            num_blocks=num_blocks, threads=threads, kv_dtype=cache_dtype,
        )  # fmt: skip
        # The library's name tells sources, compiler and processor; PyTorch makes the rotary tables.
        self.numerics = f"{Path(load_library()._name).stem}, torch {torch.__version__}"
        #: bytes of weights that one decode step reads: of the embedding a row, unless it is the head too
        self.weight_bytes = sum(m.nbytes for m in packed.values()) - (0 if head is embedding else embedding.nbytes)

    @property
    def cache_tensors(self) -> dict[str, Tensor]:
        return self._decoder.cache_tensors

    def forward(self, batch: ForwardBatch) -> Tensor:
        """Logits, float32 [L, vocab]."""
        return self._decoder.forward(
            batch.token_ids, batch.positions, batch.query_starts, batch.context_lengths,
            batch.block_tables, batch.logit_indices,
        )  # fmt: skip
