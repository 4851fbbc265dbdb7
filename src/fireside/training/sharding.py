"""Weights, gradients and optimiser states in shards over the devices (ZeRO, https://arxiv.org/abs/1910.02054).

By PyTorch's `fully_shard`: a parameter is a DTensor, of which each device has some rows. A decoder layer's weights are
gathered for its forward and its backward pass; those outside the layers for the whole of a pass.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from fireside.models.decoder import Decoder
from fireside.models.layers import DecoderLayer


def sharding_strategy(devices: int, *, is_bf16: bool) -> ModelParallelStrategy:
    """For Fabric. is_bf16: layers' weights are gathered in bfloat16, as which autocast multiplies them anyway; the
    shards, and sums of gradients over devices, are float32."""
    # Autocast's own copies would live until the backward pass: of every layer, whole, on every device.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if is_bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )

    def shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
        for layer in (layer for layer in module.modules() if isinstance(layer, DecoderLayer)):
            fully_shard(layer, mesh=mesh["data_parallel"], mp_policy=policy)
        fully_shard(module, mesh=mesh["data_parallel"])
        return module

    return ModelParallelStrategy(shard, data_parallel_size=devices, tensor_parallel_size=1)


def twin(decoder: Decoder) -> Decoder:
    """A decoder of its own with the same parameters, to be sharded: what `decoder` has stays whole, where it is."""
    return copy.deepcopy(decoder, {id(parameter): parameter for parameter in decoder.parameters()})


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded. Then all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value`, which every process has whole, on `parameter`'s device, and in shards if that is sharded."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:  # the latter: a state's counter of steps
        return value.to(parameter.device)
    moved = value.to(parameter.device)
    return distribute_tensor(moved, parameter.device_mesh, parameter.placements, src_data_rank=None)


@contextmanager
def callable_in_parts(module: nn.Module) -> Iterator[None]:
    """Within it, parts of `module` can be called on their own. Weights must not change meanwhile.

    They gather what belongs to decoder layers themselves, and find the rest gathered.
    """
    if not isinstance(module, FSDPModule):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()
