"""The estimate of activations beside what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fireside.data.config import DataConfig, SourceConfig
from fireside.training import memory
from fireside.training.memory import estimate_memory
from fireside.training.objectives import next_token, next_token_within_documents
from fireside.training.recipe import StageConfig
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


PLAN = Plan(steps=1, rows=8, micro_rows=8, length=64, lr=1.0, warmup_steps=0, evaluate_every=1, save_every=1)
