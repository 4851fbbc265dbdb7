"""The rules by which one dial, the depth, and the size of the data decide what a recipe leaves open.

| value | rule | source |
|---|---|---|
| width | 64 per layer | nanochat |
| heads | one per 64 of the width, keys and values as many | GPT-2 |
| feed-forward width | 8/3 of the width, rounded up to 64 | Llama |
| tokens | 20 per weight in a matrix product | Chinchilla, https://arxiv.org/abs/2203.15556 |
| batch | 2^19 tokens at 11.2e9 tokens of data, falling with their power of 0.383 | https://arxiv.org/abs/2505.13738 |
| fine-tuning | three epochs, 8192 tokens a step; of little data smaller steps, and 60 at least | |
| learning rate | 6e-4 at a width of 768, inversely with it, at most 3e-3 | GPT-3, https://arxiv.org/abs/2005.14165 |
| learning rate, fine-tuning | a thirtieth of that; ten times as much for LoRA | |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fireside.errors import RecipeError
from fireside.models.checkpoint import expected_shapes
from fireside.models.config import Architecture, ModelConfig
from fireside.training.recipe import ModelShape, Recipe, StageConfig

_MICRO_BATCH_TOKENS = 8192  # enough for full speed at small widths; memory grows with it
_FINE_TUNING_EPOCHS = 3.0
_FINE_TUNING_STEPS = 60  # of a few conversations too: one large step over all of them, thrice, teaches nothing
_FINE_TUNING_BATCH = 8192


@dataclass(frozen=True)
class Plan:
    """A stage in whole numbers. rows: of a step; micro_rows: of a pass, on one device; length: tokens in a row."""

    steps: int
    rows: int
    micro_rows: int
    length: int
    lr: float
    warmup_steps: int
    evaluate_every: int
    save_every: int

    @property
    def tokens_per_step(self) -> int:
        return self.rows * self.length


def model_config(shape: ModelShape, *, vocab_size: int, longest_row: int) -> ModelConfig:
    """The decoder of that shape. Raises `ModelError` for one that cannot be."""
    hidden_size = shape.hidden_size or 64 * shape.depth
    heads = shape.num_attention_heads or max(1, hidden_size // 64)
    return ModelConfig(
        architecture=Architecture.LLAMA,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=shape.intermediate_size or 64 * math.ceil(hidden_size * 8 / 3 / 64),
        num_hidden_layers=shape.depth,
        num_attention_heads=heads,
        num_key_value_heads=shape.num_key_value_heads or heads,
        head_dim=hidden_size // heads,
        max_position_embeddings=shape.max_position_embeddings or longest_row,
        rope_theta=shape.rope_theta,
        tie_word_embeddings=shape.tie_word_embeddings,
    )


def weights_in_products(config: ModelConfig) -> int:
    """Weights that every token is multiplied with: all matrices, of the embedding only the head."""
    shapes = expected_shapes(config)
    matrices = sum(math.prod(shape) for shape in shapes.values() if len(shape) == 2)
    return matrices if config.tie_word_embeddings else matrices - math.prod(shapes["model.embed_tokens.weight"])


def parameter_count(config: ModelConfig) -> int:
    return sum(math.prod(shape) for shape in expected_shapes(config).values())


def plan_stage(
    stage: StageConfig, config: ModelConfig, *, is_fine_tuning: bool, is_lora: bool, tokens_per_epoch: int, devices: int
) -> Plan:
    """What `stage` leaves open, by rule. tokens_per_epoch: rows of the packed data times their length.

    Only `micro_rows` depends on the devices. Raises `RecipeError` if there are more of them than rows.
    """
    length = stage.packing.sequence_length
    is_by_rule = stage.tokens is None and stage.epochs is None
    if stage.tokens is not None:
        tokens = stage.tokens
    elif stage.epochs is not None or is_fine_tuning:
        tokens = math.ceil((stage.epochs or _FINE_TUNING_EPOCHS) * tokens_per_epoch)
    else:
        tokens = 20 * weights_in_products(config)
    by_rule = min(_FINE_TUNING_BATCH, tokens / _FINE_TUNING_STEPS) if is_fine_tuning else _batch_tokens(tokens)
    batch = stage.batch_tokens or by_rule
    rows = max(1, round(batch / length))  # whatever the devices: a resume may have others
    if stage.batch_tokens is not None and rows < devices:  # of little data the rule may give fewer, and some rest
        raise RecipeError(
            f"batch_tokens gives {rows} rows of {length} tokens to a step, and there are {devices} devices: raise it"
        )
    micro = stage.micro_batch_tokens or _MICRO_BATCH_TOKENS
    steps = max(_FINE_TUNING_STEPS if is_fine_tuning and is_by_rule else 1, math.ceil(tokens / (rows * length)))
    tenth = max(1, math.ceil(steps / 10))
    lr = min(3e-3, 6e-4 * 768 / config.hidden_size)
    if is_fine_tuning:
        lr *= (10 if is_lora else 1) / 30
    return Plan(
        steps=steps,
        rows=rows,
        micro_rows=min(max(1, micro // length), math.ceil(rows / devices)),
        length=length,
        lr=stage.lr or lr,
        warmup_steps=round(stage.warmup_fraction * steps),
        evaluate_every=stage.evaluate_every or tenth,
        save_every=stage.save_every or tenth,
    )


def plan_of(recipe: Recipe, name: str, config: ModelConfig, *, tokens_per_epoch: int) -> Plan:
    """`plan_stage` for the stage of that name, on the recipe's hardware."""
    return plan_stage(
        recipe.stages[name],
        config,
        is_fine_tuning=name == "sft",
        is_lora=recipe.lora is not None,
        tokens_per_epoch=tokens_per_epoch,
        devices=recipe.hardware.devices * recipe.hardware.nodes,
    )


def _batch_tokens(tokens: int) -> int:
    return int(2 ** round(math.log2(2**19 * (tokens / 11.2e9) ** 0.383)))
