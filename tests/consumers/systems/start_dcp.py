"""transformers' Llama under FSDP2 starts from a mount by dcp.load, in several worlds and meshes.

    start_dcp.py make OUT             writes the Hugging Face folder OUT
    start_dcp.py load OUT MNT SHAPE   SHAPE such as 4 or 2x2: the mesh
    start_dcp.py save MNT FILE        torch's dcp_to_torch_save
    start_dcp.py bin OUT MNT          from_pretrained of pytorch_model.bin or its shards
"""
import sys

import torch
import torch.distributed.checkpoint as dcp
from transformers import AutoModelForCausalLM

import hf
import ranks
from titan_parts import whole

SHAPE = dict(tie_word_embeddings=True, hidden_size=192, intermediate_size=272, vocab_size=1031)


def load(rank, source, mount, mesh):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = AutoModelForCausalLM.from_config(hf.config("llama", **SHAPE), dtype=torch.float32)
    mesh = init_device_mesh("cpu", mesh, mesh_dim_names=("replicate", "shard")[-len(mesh):])
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    state = model.state_dict()
    dcp.load(state, checkpoint_id=mount)
    wanted = hf.folder(source)
    wanted["lm_head.weight"] = wanted["model.embed_tokens.weight"]
    assert set(state) == set(wanted), set(state) ^ set(wanted)
    for name, tensor in state.items():
        assert torch.equal(whole(tensor), wanted[name].float()), name


def save(mount, file):
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(mount, file)


def from_bin(source, mount):
    made = AutoModelForCausalLM.from_pretrained(mount, use_safetensors=False, dtype=torch.bfloat16)
    wanted = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).state_dict()
    state = made.state_dict()
    assert set(state) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(state[name], tensor), name


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", out]:
            hf.model(hf.config("llama", **SHAPE), torch.bfloat16).save_pretrained(out)
        case ["load", out, mount, shape]:
            mesh = tuple(map(int, shape.split("x")))
            world = mesh[0] * (mesh[1] if len(mesh) > 1 else 1)
            ranks.run(world, load, out, mount, mesh)
        case ["save", mount, file]:
            save(mount, file)
        case ["bin", out, mount]:
            from_bin(out, mount)
