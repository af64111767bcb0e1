"""fsdp2_rank_files.py OUT: one process of a world that saves its DTensors as verl's FSDP checkpoint manager does."""
import json
import pathlib
import sys

import torch
import torch.distributed as dist

import dcp
import tiny

SHAPE = dcp.small | dcp.bf16 | {"num_hidden_layers": 1}


def save(out):
    model = tiny.model(**SHAPE)
    state = dcp.even(model)
    rank, world = dist.get_rank(), dist.get_world_size()
    out.mkdir(parents=True, exist_ok=True)
    torch.save(state, out / f"model_world_size_{world}_rank_{rank}.pt")
    if rank == 0:
        (out / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": world}, indent=4))
        tiny.write_config(out / "huggingface", **SHAPE)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    save(pathlib.Path(sys.argv[1]))
    dist.destroy_process_group()
