"""torch.distributed.checkpoint: one process of a world that saves tiny Llamas in many layouts.

As a script: dcp.py OUT LAYOUT...  writes OUT/LAYOUT/source and OUT/LAYOUT/config for each.
"""
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import SerializationFormat
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType, fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import tiny


@dataclasses.dataclass
class Layout:
    world: int
    state: Callable
    writer: Callable = dcp.FileSystemWriter
    shape: dict = dataclasses.field(default_factory=dict)


def shard(model, mesh, placement=None):
    for module in [*model.model.layers, model]:
        fully_shard(module, mesh=mesh, shard_placement_fn=placement)


def plain(model):
    return model.state_dict()


def even(model):
    shard(model, init_device_mesh("cpu", (dist.get_world_size(),)))
    return get_model_state_dict(model)


def dim1(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    shard(model, mesh, lambda parameter: Shard(1) if parameter.ndim > 1 else None)
    return get_model_state_dict(model)


def adam(model):
    even(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optim": moments, "step": 2, "rng": torch.get_rng_state()}


def compiled(model):
    """The raw state dict: torch.compile's and the wrapper's segments stay in the names."""
    for i, layer in enumerate(model.model.layers):
        model.model.layers[i] = torch.compile(layer)
    even(model)
    return {"model": model.state_dict()}


def fsdp1(model):
    return fsdp1_sharded_tensor(model, device_mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def fsdp1_sharded_tensor(model, **mesh):
    """Without a mesh FSDP1 saves ShardedTensors, with one DTensors."""
    wrapped = FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True, **mesh)
    with FullyShardedDataParallel.state_dict_type(wrapped, StateDictType.SHARDED_STATE_DICT):
        return {"model": wrapped.state_dict()}


def tp_fsdp(model):
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    plan = {"model.embed_tokens": RowwiseParallel(), "lm_head": ColwiseParallel()}
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
        plan["model.layers.*." + name] = ColwiseParallel()
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        plan["model.layers.*." + name] = RowwiseParallel()
    parallelize_module(model, mesh["tp"], plan)
    shard(model, mesh["dp"])
    return get_model_state_dict(model)


def hsdp(model):
    shard(model, init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    return get_model_state_dict(model)


file_per_tensor = functools.partial(dcp.FileSystemWriter, single_file_per_rank=False)
hf_writer = functools.partial(dcp.HuggingFaceStorageWriter, save_distributed=True)
as_safetensors = functools.partial(dcp.FileSystemWriter, serialization_format=SerializationFormat.SAFETENSORS)
bf16 = {"dtype": "bfloat16"}
small = {"vocab_size": 130, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}

LAYOUTS = {
    "plain": Layout(1, plain),
    "plain-file-per-tensor": Layout(1, plain, file_per_tensor),
    "even": Layout(2, even),
    "dim1": Layout(2, dim1),
    "adam": Layout(2, adam),
    "compiled": Layout(2, compiled),
    "fsdp1": Layout(2, fsdp1),
    "fsdp1-sharded-tensor": Layout(2, fsdp1_sharded_tensor),
    "hf-writer": Layout(2, even, hf_writer),
    "safetensors": Layout(2, even, as_safetensors, bf16),
    "file-per-tensor": Layout(2, even, file_per_tensor, bf16),
    "uneven": Layout(3, even, shape=small | bf16),
    "empty-shards": Layout(3, even, shape={"vocab_size": 4}),
    "tp-fsdp": Layout(4, tp_fsdp),
    "hsdp": Layout(4, hsdp, shape=bf16),
}


def save(name, out):
    layout = LAYOUTS[name]
    state = layout.state(tiny.model(**layout.shape))
    dcp.save(state, storage_writer=layout.writer(out / name / "source"))
    if dist.get_rank() == 0:
        tiny.write_config(out / name / "config", **layout.shape)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for name in sys.argv[2:]:
        save(name, pathlib.Path(sys.argv[1]))
    dist.destroy_process_group()
