"""Lingua starts from a mount, by the calls that it makes: dcp.load of {"model": get_model_state_dict} for init_ckpt_path, and
torch.load of consolidated/consolidated.pth with consolidated/params.json for generate and eval. Its modules are gen_lingua.py's.

    start_lingua.py OUT MNT   OUT a Hugging Face folder, MNT its mount
"""
import json
import pathlib
import sys

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import hf
import ranks
from gen_lingua import Transformer
from gen_meta import meta_state
from titan_parts import whole


def wanted(source):
    config = json.loads((pathlib.Path(source) / "config.json").read_text())
    state = meta_state(hf.folder(source), config["head_dim"])
    if config["tie_word_embeddings"]:
        state.pop("output.weight", None)
        state["output.tied_module.weight"] = state["tok_embeddings.weight"]
    return config, state


def load(rank, source, mount):
    config, state = wanted(source)
    model = Transformer(config, config["head_dim"])
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    mine = {"model": get_model_state_dict(model)}
    dcp.load(mine, checkpoint_id=mount)
    for name, tensor in mine["model"].items():
        assert torch.equal(whole(tensor), state[name].float()), name


def generate(source, mount):
    _, state = wanted(source)
    folder = pathlib.Path(mount) / "consolidated"
    params = json.loads((folder / "params.json").read_text())
    assert params["distributed"]["model_dtype"] == "bf16"
    consolidated = torch.load(folder / "consolidated.pth", weights_only=True)["model"]
    assert set(consolidated) == set(state), set(consolidated) ^ set(state)
    for name, tensor in state.items():
        assert torch.equal(consolidated[name], tensor), name


if __name__ == "__main__":
    source, mount = sys.argv[1:]
    generate(source, mount)
    ranks.run(2, load, source, mount)
