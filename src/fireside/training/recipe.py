"""Recipes: a TOML file that fully says a training run.

Unknown keys are errors that name the nearest known one. `[training]` holds values for every stage of the recipe; a
stage's own table has the last word. What a recipe leaves out, `scaling.py` decides by rule, and the resolved recipe is
saved with the run.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fireside.data.config import DataConfig, PackingConfig, RecipeTable, TokenizerConfig
from fireside.training.schedules import Schedule


class OptimizerKind(StrEnum):
    """What turns gradients into steps."""

    ADAMW = "adamw"
    MUON = "muon"  # https://kellerjordan.github.io/posts/muon/


class ModelShape(RecipeTable):
    """A new decoder of the Llama family: one dial, and what it turns, each of which can be set on its own."""

    depth: int = Field(ge=1, le=256, description="Layers: the one dial. All else follows from it by stated rules.")
    hidden_size: int | None = Field(None, ge=8, description="Width; none: 64 per layer.")
    intermediate_size: int | None = Field(None, ge=8, description="Width within a feed-forward network; none: 8/3.")
    num_attention_heads: int | None = Field(None, ge=1, description="Query heads; none: one per 64 of the width.")
    num_key_value_heads: int | None = Field(None, ge=1, description="Key and value heads; none: as many as queries'.")
    max_position_embeddings: int | None = Field(None, ge=2, description="Context; none: the longest row trained on.")
    rope_theta: float = Field(10_000.0, gt=1, description="Base of the rotary frequencies.")
    tie_word_embeddings: bool = Field(True, description="Whether the output head is the embedding.")


class LoraConfig(RecipeTable):
    """Low-rank adaptation (https://arxiv.org/abs/2106.09685): small matrices train, the weights they add to do not."""

    rank: int = Field(16, ge=1, description="Rank of each update.")
    alpha: float = Field(32.0, gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the update's inputs that is dropped in training.")
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Last names of the linear layers that get an update.",
    )
    rank_stabilized: bool = Field(
        False, description="Scale by alpha / sqrt(rank) instead (https://arxiv.org/abs/2312.03732)."
    )
    quantized_base: bool = Field(
        True,
        description="Keep a quantized base in its blocks, unfolded layer by layer (https://arxiv.org/abs/2305.14314); "
        "false: unfold it once, which takes several times the memory. A base in floats is not changed.",
    )
    merge: bool = Field(
        True,
        description="Install the base with the updates added; false: the adapter alone, which needs its base to run.",
    )


class TrainingConfig(RecipeTable):
    """How a stage trains."""

    tokens: int | None = Field(None, ge=1, description="Tokens to train on; none: by the stage's rule, or `epochs`.")
    epochs: float | None = Field(None, gt=0, description="Times to go through the data, instead of `tokens`.")
    batch_tokens: int | None = Field(None, ge=2, description="Tokens in one step of the optimiser; none: by rule.")
    micro_batch_tokens: int | None = Field(
        None,
        ge=2,
        description="Tokens in one pass, by memory alone: the gradient does not depend on it. None: by rule.",
    )
    lr: float | None = Field(None, gt=0, description="Peak learning rate; none: by rule.")
    optimizer: OptimizerKind = Field(OptimizerKind.ADAMW, description="adamw, or muon for the hidden matrices.")
    weight_decay: float = Field(0.1, ge=0, description="Of matrices.")
    schedule: Schedule = Field(Schedule.WSD, description="wsd, cosine or linear.")
    warmup_fraction: float = Field(0.03, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    decay_fraction: float = Field(0.4, gt=0, le=1, description="Share of the steps in which wsd falls.")
    floor: float = Field(0.0, ge=0, lt=1, description="What the rate ends at, as a share of its peak.")
    clip_norm: float | None = Field(1.0, gt=0, description="Largest norm of a gradient; none: any.")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Keep an exponential average of the weights, and evaluate and save that."
    )
    mask_documents: bool = Field(False, description="Tokens of a packed row see their own document only.")
    activation_checkpointing: bool = Field(False, description="Recompute layers in the backward pass to save memory.")
    log_every: int = Field(1, ge=1, description="Steps between lines of the record.")
    evaluate_every: int | None = Field(None, ge=1, description="Steps between evaluations; none: ten in a run.")
    evaluation_tokens: int = Field(100_000, ge=1, description="Held-out tokens of one evaluation, at most.")
    save_every: int | None = Field(None, ge=1, description="Steps between checkpoints; none: ten in a run.")
    keep: int = Field(2, ge=1, description="Checkpoints that stay, beside the best.")
    sample_prompts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Texts that are continued at every evaluation."
    )
    sample_tokens: int = Field(48, ge=1, description="Tokens of such a sample.")

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingConfig:
        if self.tokens is not None and self.epochs is not None:
            raise ValueError("tokens and epochs both say how long to train: give one")
        return self


class StageConfig(TrainingConfig):
    """A stage: its data, and how it trains."""

    data: DataConfig = Field(description="Sources, cleaning, validation split.")
    packing: PackingConfig = Field(PackingConfig(), description="How documents become rows.")


class HardwareConfig(RecipeTable):
    """Where it runs."""

    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is a GPU.")
    devices: int = Field(1, ge=1, description="Devices, or processes on a CPU, of this machine.")
    nodes: int = Field(1, ge=1, description="Machines, each with that many devices.")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        "auto", description="ddp: every device holds the whole model; fsdp: a part of it. auto: ddp."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="auto: bf16 products where the hardware has them, else tf32; weights and sums are fp32 always.",
    )
    threads: int = Field(0, ge=0, description="CPU threads; 0: one per physical core.")
    compile: bool = Field(False, description="torch.compile the layers: pays on GPUs, after a minute or more.")

    @property
    def shards(self) -> int:
        """Parts that the model is held in, each on a device of its own."""
        return self.devices * self.nodes if self.strategy == "fsdp" else 1


class TrackingConfig(RecipeTable):
    """Where a run can be watched beside its own folder. Nothing leaves the machine unless it is asked for here."""

    tensorboard: bool = Field(True, description="Write TensorBoard's event files into the run's folder.")
    wandb: str | None = Field(
        None, min_length=1, description="Project of Weights & Biases that the run is sent to; none: nothing is sent."
    )
    wandb_entity: str | None = Field(None, min_length=1, description="Whose project it is; none: the account's own.")
    mlflow: str | None = Field(
        None, min_length=1, description="Experiment of MLflow that the run is sent to; none: nothing is sent."
    )
    mlflow_uri: str | None = Field(
        None, min_length=1, description="MLflow's server or store; none: as MLFLOW_TRACKING_URI says."
    )

    @model_validator(mode="after")
    def _has_effect(self) -> TrackingConfig:
        for detail, tracker in (("wandb_entity", self.wandb), ("mlflow_uri", self.mlflow)):
            if getattr(self, detail) is not None and tracker is None:
                name = detail.partition("_")[0]
                raise ValueError(f"{detail} has no effect without {name}: set that too, or leave this out")
        return self


class Recipe(RecipeTable):
    """A training run."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="What the model will be called in `fireside models`."
    )
    seed: int = Field(0, ge=0, lt=1 << 31, description="Of weights, data order and dropout.")
    licence: str | None = Field(None, description="Of the model that comes out, as `fireside models` shows it.")
    base: str | None = Field(None, description="Model to start from, a name or a path; none: a new one, by `model`.")
    tokenizer: TokenizerConfig | None = Field(None, description="A vocabulary of its own; a base model brings its own.")
    model: ModelShape | None = Field(None, description="The shape of a new model.")
    pretrain: StageConfig | None = Field(None, description="Every token of running text is a target.")
    sft: StageConfig | None = Field(None, description="Supervised fine-tuning: the assistant's tokens are targets.")
    lora: LoraConfig | None = Field(None, description="Train low-rank updates instead of all weights.")
    hardware: HardwareConfig = Field(HardwareConfig.model_validate({}), description="Devices and precision.")
    tracking: TrackingConfig = Field(TrackingConfig.model_validate({}), description="TensorBoard and other watchers.")

    @model_validator(mode="after")
    def _is_whole(self) -> Recipe:
        if self.pretrain is None and self.sft is None:
            raise ValueError("there is no stage: add [pretrain] or [sft]")
        if self.base is None and (self.model is None or self.tokenizer is None):
            raise ValueError("a new model needs [model] with a depth and [tokenizer]; or name a base to start from")
        if self.base is not None and (self.model is not None or self.tokenizer is not None):
            raise ValueError("a base model brings its shape and tokenizer: leave [model] and [tokenizer] out")
        if self.lora is not None and self.base is None:
            raise ValueError("[lora] adapts a base model: name one")
        return self

    @property
    def stages(self) -> dict[str, StageConfig]:
        """By name, in the order they run."""
        named = {"pretrain": self.pretrain, "sft": self.sft}
        return {name: stage for name, stage in named.items() if stage is not None}
