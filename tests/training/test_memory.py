"""The estimate of activations beside what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fireside.data.config import DataConfig, SourceConfig
from fireside.training import memory
from fireside.training.memory import estimate_memory
from fireside.training.objectives import next_token, next_token_within_documents
from fireside.training.recipe import LoraConfig, StageConfig
from fireside.training.scaling import Plan
from tests.training import runs


@pytest.mark.parametrize("mask_documents", [False, True])
@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize("width", [64, 256])
def test_activations_are_estimated_from_above_and_not_wildly(
    monkeypatch: pytest.MonkeyPatch, width: int, is_bf16: bool, mask_documents: bool
) -> None:
    monkeypatch.setitem(memory.CHUNK_BYTES, "cuda", 0)  # a constant, and far more than these models
    decoder = runs.decoder(hidden_size=width, intermediate_size=3 * width, head_dim=16, num_hidden_layers=4)
    batch = runs.random_batch(8, 64)
    weights = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    objective = next_token_within_documents if mask_documents else next_token
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16), hooks:
        loss = objective(decoder, batch)
    loss.backward()
    source = SourceConfig(name="none", path="none")
    stage = StageConfig(data=DataConfig(sources=(source,)), mask_documents=mask_documents)
    plan = replace(PLAN, micro_rows=8, length=64)
    config = decoder.config
    estimate = estimate_memory(config, stage, plan, lora=None, is_bf16=is_bf16, shards=1).activations
    copies = 2 * sum(parameter.numel() for parameter in decoder.parameters()) if is_bf16 else 0  # counted elsewhere
    measured = sum(kept.values()) - copies
    assert measured < estimate < 3 * measured


@pytest.mark.parametrize("lora", [None, LoraConfig()])
@pytest.mark.parametrize("is_bf16", [False, True])
def test_shards_are_parts_and_what_is_gathered_of_them(is_bf16: bool, lora: LoraConfig | None) -> None:
    """By hand for a model of twenty layers: what a device keeps of each number is an eighth, and it gathers three."""
    config = replace(runs.SHAPE, hidden_size=256, intermediate_size=768, head_dim=64, num_hidden_layers=20)
    stage = StageConfig(data=DataConfig(sources=(SourceConfig(name="none", path="none"),)), ema_decay=0.9)
    whole, shard = (
        estimate_memory(config, stage, PLAN, lora=lora, is_bf16=is_bf16, shards=shards) for shards in (1, 8)
    )
    layer = 256 * (256 + 128 + 128 + 256) + 3 * 256 * 768 + 2 * 256
    outside = (runs.VOCAB + 1) * 256
    count = 20 * layer + outside
    trained = count if lora is None else memory.lora_parameter_count(config, lora)
    assert shard.optimizer * 8 == whole.optimizer == 8 * trained
    assert whole.weights == count * (6 if is_bf16 else 4) + 4 * trained
    assert shard.weights == pytest.approx(
        (count + trained) / 2 + outside * (6 if is_bf16 else 4) + 3 * layer * (2 if is_bf16 else 4), abs=2
    )
    gathered = (outside + 3 * layer) * 4 if lora is None else 3 * trained // 20 * 4
    assert whole.gradients - shard.gradients == pytest.approx(trained * 4 * 7 / 8 - gathered, abs=8)
    assert shard.activations == whole.activations


PLAN = Plan(steps=1, rows=8, micro_rows=8, length=64, lr=1.0, warmup_steps=0, evaluate_every=1, save_every=1)
