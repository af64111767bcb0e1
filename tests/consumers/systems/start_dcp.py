"""transformers' Llama under FSDP2 starts from a mount by dcp.load, in several worlds and meshes.

    start_dcp.py make OUT             writes the Hugging Face folder OUT
    start_dcp.py load OUT MNT SHAPE   SHAPE such as 4 or 2x2: the mesh
    start_dcp.py save MNT FILE        torch's dcp_to_torch_save
    start_dcp.py bin OUT MNT          from_pretrained of pytorch_model.bin or its shards
    start_dcp.py large OUT            writes eight tensors of 16 MiB
    start_dcp.py shards OUT MNT N     N ranks load shards of them
    start_dcp.py sparse FILE I,J ...  torch.load of a tensor that is 1.5 at these places, and else 0
"""
import pathlib
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


LARGE = (4096, 2048)


def large(out):
    from safetensors.torch import save_file

    pathlib.Path(out).mkdir()
    torch.manual_seed(0)
    save_file({f"layers.{number}.weight": torch.randn(LARGE).bfloat16() for number in range(8)}, f"{out}/model.safetensors")
    pathlib.Path(out, "config.json").write_text('{"model_type": "free"}')


def shards(rank, source, mount, world):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, zeros

    mesh, wanted = init_device_mesh("cpu", (world,)), hf.folder(source)
    state = {name: zeros(LARGE, dtype=torch.bfloat16, device_mesh=mesh, placements=[Shard(0)]) for name in wanted}
    dcp.load(state, checkpoint_id=mount)
    for name, tensor in state.items():
        assert torch.equal(tensor.to_local(), wanted[name].chunk(world)[rank]), name


def sparse(file, *places):
    (tensor,) = torch.load(file, mmap=True, weights_only=True).values()
    for place in places:
        row, column = map(int, place.split(","))
        assert tensor[row, column].item() == 1.5 and tensor[row].count_nonzero().item() == 1, place
    assert tensor[1].count_nonzero() == 0


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
        case ["large", out]:
            large(out)
        case ["shards", out, mount, world]:
            ranks.run(int(world), shards, out, mount, int(world))
        case ["sparse", file, *places]:
            sparse(file, *places)
