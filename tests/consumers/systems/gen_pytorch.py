"""Accelerate's and PyTorch FSDP's own saves, on gloo.

    gen_pytorch.py OUT

accelerate.utils.save_fsdp_model and save_fsdp_optimizer write the folders; the accelerator that they ask for the rank is a stand-in. The
reference is what save_pretrained writes for the same model; accelerate's merge_fsdp_weights must agree where it can read the folder.
"""
import pathlib
import sys
import tempfile
from types import SimpleNamespace

import torch
from accelerate import PartialState
from accelerate.utils import FullyShardedDataParallelPlugin, merge_fsdp_weights, save_fsdp_model, save_fsdp_optimizer
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

import hf
import ranks
from case import Case, same

PACKAGES = ("torch", "accelerate", "transformers")


def wrap(model, version, mesh=None):
    if version == 1:
        policy = ModuleWrapPolicy({type(model.model.layers[0])})
        return FullyShardedDataParallel(model, auto_wrap_policy=policy, device_id=torch.device("cpu"), use_orig_params=True, device_mesh=mesh)
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def stepped(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer


def by_accelerate(rank, folder, cfg, dtype, version, kind, use_dcp):
    PartialState(cpu=True)  # its logger asks for it
    model = wrap(hf.model(cfg, dtype), version)
    optimizer = stepped(model)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=version, state_dict_type=kind, cpu_offload=False)
    plugin.set_state_dict_type(kind)
    world = torch.distributed.get_world_size()
    accelerator = SimpleNamespace(process_index=rank, local_process_index=rank, num_processes=world, is_fsdp2=version == 2, wait_for_everyone=torch.distributed.barrier)
    save_fsdp_model(plugin, accelerator, model, str(folder), use_dcp=use_dcp)
    if kind == "SHARDED_STATE_DICT" and use_dcp:
        save_fsdp_optimizer(plugin, accelerator, optimizer, model, str(folder))


def by_torch(rank, folder, cfg, dtype):
    """A trainer's own file per rank, verl's older naming: FSDP1 without a mesh, so ShardedTensors."""
    from torch.distributed.fsdp import ShardedStateDictConfig, StateDictType
    model = wrap(hf.model(cfg, dtype), 1)
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.SHARDED_STATE_DICT, ShardedStateDictConfig(offload_to_cpu=False)):
        torch.save(model.state_dict(), folder / f"model_world_size_{torch.distributed.get_world_size()}_rank_{rank}.pt")


def merged(folder):
    with tempfile.TemporaryDirectory() as target:
        merge_fsdp_weights(str(folder), target, safe_serialization=True)
        return {k: v.clone() for f in pathlib.Path(target).rglob("*.safetensors") for k, v in load_file(f).items()}


def accelerate(out, name, family, dtype, world, *, version=2, kind="SHARDED_STATE_DICT", use_dcp=True, source="source/pytorch_model_fsdp_0", special="", **changes):
    cfg = hf.config(family, **changes)
    tensors, c = hf.saved(hf.model(cfg, dtype))
    case = Case(out, f"accelerate-{name}", system="accelerate", family=family, packages=PACKAGES)
    case.config(c)
    ranks.run(world, by_accelerate, case.source, cfg, dtype, version, kind, use_dcp)
    by = "save_pretrained of the same model"
    if use_dcp and kind == "SHARDED_STATE_DICT" and not cfg.tie_word_embeddings:
        same(merged(case.source / "pytorch_model_fsdp_0"), tensors)
        by += ", equal to accelerate's merge_fsdp_weights"
    case.done(tensors, by=by, source=source, special=special)


def sharded_tensor(out, name, family, dtype, world, special="", **changes):
    cfg = hf.config(family, **changes)
    made = hf.model(cfg, dtype)
    tensors, c = hf.saved(made)
    case = Case(out, f"pytorch-{name}", system="pytorch", family=family, packages=("torch", "transformers"))
    case.config(c)
    ranks.run(world, by_torch, case.source, cfg, dtype)
    cfg.save_pretrained(case.source / "huggingface")
    case.done(tensors, by="save_pretrained of the same model", config_from=None, special=special)


def main(out):
    f32, bf16 = torch.float32, torch.bfloat16
    accelerate(out, "fsdp2-w2", "llama", f32, 2, special="pytorch_model_fsdp_0 beside optimizer_0")
    accelerate(out, "fsdp2-w3-bf16", "qwen2", bf16, 3, special="the parent folder is mounted", source="source")
    accelerate(out, "fsdp2-w2-tied", "qwen3", f32, 2, special="tied", head_dim=32, tie_word_embeddings=True)
    accelerate(out, "fsdp1-w2", "llama", f32, 2, version=1, special="FSDP1 through DCP")
    accelerate(out, "fsdp1-w2-rankfiles", "mistral", f32, 2, version=1, use_dcp=False, source="source", special="ShardedTensors in pytorch_model_fsdp_0_rankR.bin", head_dim=32)
    accelerate(out, "fsdp2-w3-rankfiles", "llama", bf16, 3, use_dcp=False, source="source", special="DTensors in pytorch_model_fsdp_0_rankR.bin")
    accelerate(out, "full-w2", "qwen2", f32, 2, kind="FULL_STATE_DICT", source="source", special="pytorch_model_fsdp.bin")
    sharded_tensor(out, "fsdp1-shardedtensor-w2", "llama", f32, 2, special="FSDP1 ShardedTensor .pt per rank")
    sharded_tensor(out, "fsdp1-shardedtensor-w3-bf16", "qwen2", bf16, 3, special="FSDP1 ShardedTensor .pt per rank, uneven")


if __name__ == "__main__":
    main(sys.argv[1])
