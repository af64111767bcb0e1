"""run_writer.py FOLDER SIGNS: saves a step of the tiny model every two seconds, as one of several ranks, until SIGNS/stop exists.

Keeps ten steps more than the readers need, each of which writes the step that it loaded last to SIGNS/reader-N."""
import itertools
import pathlib
import shutil
import sys
import time

import torch
import torch.distributed
import torch.distributed.checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import tiny

KEPT = 10


def save(step, folder, mesh):
    state = tiny.model(seed=step).state_dict()
    sharded = {name: distribute_tensor(tensor, mesh, [Shard(0)]) for name, tensor in state.items()}
    torch.distributed.checkpoint.save(sharded, checkpoint_id=folder / f"step-{step}")


def remove_old(folder, signs):
    """A step goes as a whole: no reader meets one of which a part is gone."""
    loaded = [int(path.read_text()) for path in signs.glob("reader-*[0-9]")]
    for saved in folder.glob("step-*"):
        if int(saved.name.removeprefix("step-")) <= min(loaded, default=0) - KEPT:
            gone = signs / saved.name
            saved.rename(gone)
            shutil.rmtree(gone)


def train(folder, signs):
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for step in itertools.count(1):
        save(step, folder, mesh)
        if torch.distributed.get_rank() == 0:
            remove_old(folder, signs)
        goes_on = torch.tensor(not (signs / "stop").exists())
        torch.distributed.broadcast(goes_on, 0)
        if not goes_on:
            break
        time.sleep(2)
    torch.distributed.destroy_process_group()
    print("steps", step)


if __name__ == "__main__":
    train(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
