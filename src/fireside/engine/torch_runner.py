"""The portable runner: PyTorch on whatever device the decoder lives on, with a paged cache of keys and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fireside.engine.runner import ForwardBatch
from fireside.models.decoder import Decoder


class TorchRunner:
    """Implements `engine.runner.Runner` for any `Decoder`, in its dtype, on its device.

    Not batch-invariant to the bit: PyTorch picks its matrix kernels by shape.
    """

    backend = "torch"
    batch_invariant = False

    def __init__(self, decoder: Decoder, num_blocks: int, block_size: int = 16) -> None:
        """Reserves the cache: 2 x layers x num_blocks x block_size x key-value heads x head_dim numbers."""
        config = decoder.config
        self.decoder = decoder.eval()
        self.dtype = str(decoder.dtype).removeprefix("torch.")
        self.device = decoder.device.type
        self.vocab_size = config.vocab_size
        self.block_size = block_size
        self.num_blocks = num_blocks
        shape = (config.num_hidden_layers, num_blocks * block_size, config.num_key_value_heads, config.head_dim)
        # Zeros and not whatever memory held: padding is masked, but 0 x NaN would still be NaN.
        self.keys = torch.zeros(shape, dtype=decoder.dtype, device=decoder.device)
        self.values = torch.zeros_like(self.keys)
        on_gpu = self.device == "cuda"
        processor = torch.cuda.get_device_name(self.keys.device) if on_gpu else torch.backends.cpu.get_cpu_capability()
        self.numerics = f"torch {torch.__version__} on {processor}"

    @property
    def cache_tensors(self) -> dict[str, Tensor]:
        layers, _, *rest = self.keys.shape
        shape = (layers, self.num_blocks, self.block_size, *rest)
        return {"keys": self.keys.view(shape), "values": self.values.view(shape)}

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch) -> Tensor:
        """See `Runner.forward`. Logits [L, vocab_size], float32, on the decoder's device."""
        device = self.decoder.device
        attend = PagedAttention(self.keys, self.values, batch, self.block_size, self.decoder.config.sliding_window)
        token_ids, positions = batch.token_ids.to(device)[None], batch.positions.to(device)[None]
        states = self.decoder.hidden_states(token_ids, positions, attend)
        return self.decoder.logits(states[0, batch.logit_indices.to(device)]).float()


class PagedAttention:
    """`models.layers.Attend` over the cache, for one batch: writes its keys and values, then reads back each
    sequence's whole context.

    keys, values: [layers, slots, key-value heads, head_dim], where slot = block * block_size + offset. The batch's
    decode steps (one query each) are padded and computed together; its prefill chunks one by one.
    """

    def __init__(
        self, keys: Tensor, values: Tensor, batch: ForwardBatch, block_size: int, window: int | None = None
    ) -> None:
        self.keys, self.values = keys, values
        device = keys.device
        lengths = batch.query_starts.diff().long()
        sequence_of_token = torch.arange(len(lengths)).repeat_interleave(lengths)
        positions = batch.positions.long()
        tables = batch.block_tables.long().clamp(min=0)  # padding points at block 0 and is masked below
        # The slot of every position of every sequence's table: [S, max_blocks * block_size].
        slots = (tables[:, :, None] * block_size + torch.arange(block_size)).flatten(1)
        self.write_slots = slots[sequence_of_token, positions].to(device)

        def sees(query_positions: Tensor, length: int) -> Tensor:
            """Which of `length` positions each query may look at: bool [queries, length]."""
            distance = query_positions[:, None] - torch.arange(length)
            return (distance >= 0) if window is None else (distance >= 0) & (distance < window)

        contexts = batch.context_lengths.tolist()
        starts = batch.query_starts.tolist()
        self.chunks: list[tuple[slice, Tensor, Tensor]] = []  # tokens, slots of the context, mask
        decoding: list[int] = []
        for index, context in enumerate(contexts):
            tokens = slice(starts[index], starts[index + 1])
            if tokens.stop - tokens.start == 1:
                decoding.append(index)
            elif tokens.stop > tokens.start:
                mask = sees(positions[tokens], context)
                self.chunks.append((tokens, slots[index, :context].to(device), mask.to(device)))
        longest = max((contexts[index] for index in decoding), default=0)
        decode_tokens = batch.query_starts[:-1].long()[decoding]
        self.decode_tokens = decode_tokens.to(device)
        self.decode_slots = slots[decoding, :longest].to(device)
        self.decode_mask = sees(positions[decode_tokens], longest)[:, None, None].to(device)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [1, T, H, D], key and value [1, T, K, D]; returns [1, T, H, D]."""
        keys, values = self.keys[layer], self.values[layer]
        keys[self.write_slots], values[self.write_slots] = key[0], value[0]
        out = torch.empty_like(query[0])
        for tokens, slots, mask in self.chunks:
            out[tokens] = _attend(query[:, tokens], keys[slots][None], values[slots][None], mask)[0]
        if len(self.decode_tokens):
            steps = query[0, self.decode_tokens][:, None]
            attended = _attend(steps, keys[self.decode_slots], values[self.decode_slots], self.decode_mask)
            out[self.decode_tokens] = attended[:, 0]
        return out[None]


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """query [B, Q, H, D] over keys and values [B, C, K, D], mask broadcast to [B, H, Q, C]; returns [B, Q, H, D]."""
    attended = F.scaled_dot_product_attention(
        query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask, enable_gqa=True
    )
    return attended.transpose(1, 2)
