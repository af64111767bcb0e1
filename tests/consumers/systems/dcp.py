"""torch.distributed.checkpoint: one process of a world that saves tiny Llamas in many layouts.

As a script: dcp.py OUT LAYOUT...  writes OUT/LAYOUT/source and OUT/LAYOUT/config for each.
"""
import contextlib
import pathlib
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType, fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import tiny

WORLDS = {
    "plain": 1,
    "file-per-tensor-alone": 1,
    "even": 2,
    "dim1": 2,
    "adam": 2,
    "compiled": 2,
    "fsdp1": 2,
    "fsdp1-local-tensors": 2,
    "hf-writer": 2,
    "safetensors": 2,
    "file-per-tensor": 2,
    "uneven": 3,
    "empty-shards": 3,
    "tp-fsdp": 4,
    "hsdp": 4,
}
SHAPES = {
    "uneven": {"dtype": "bfloat16", "vocab_size": 130, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "empty-shards": {"vocab_size": 4},
    "hsdp": {"dtype": "bfloat16"},
    "safetensors": {"dtype": "bfloat16"},
}


def shard(model, mesh, placement=None):
    for module in [*model.model.layers, model]:
        fully_shard(module, mesh=mesh, shard_placement_fn=placement)


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


def fsdp1(model, mesh=True):
    mesh = {"device_mesh": init_device_mesh("cpu", (dist.get_world_size(),))} if mesh else {}
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


STATES = {
    "plain": lambda model: model.state_dict(),
    "file-per-tensor-alone": lambda model: model.state_dict(),
    "dim1": dim1,
    "adam": adam,
    "compiled": compiled,
    "fsdp1": fsdp1,
    "fsdp1-local-tensors": lambda model: fsdp1(model, mesh=False),
    "tp-fsdp": tp_fsdp,
    "hsdp": hsdp,
}


def writer(layout, folder):
    match layout:
        case "hf-writer":
            return dcp.HuggingFaceStorageWriter(folder, save_distributed=True)
        case "safetensors":
            return dcp.FileSystemWriter(folder, serialization_format=dcp.filesystem.SerializationFormat.SAFETENSORS)
        case "file-per-tensor" | "file-per-tensor-alone":
            return dcp.FileSystemWriter(folder, single_file_per_rank=False)
        case _:
            return dcp.FileSystemWriter(folder)


def save(layout, out):
    shape = SHAPES.get(layout, {})
    state = STATES.get(layout, even)(tiny.model(**shape))
    with contextlib.redirect_stdout(sys.stderr):
        dcp.save(state, storage_writer=writer(layout, out / layout / "source"))
    if dist.get_rank() == 0:
        tiny.write_config(out / layout / "config", **shape)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for name in sys.argv[2:]:
        save(name, pathlib.Path(sys.argv[1]))
    dist.destroy_process_group()
