"""torchtitan 0.2.2 starts from a mount, as start_titan.py has it.

    start_titan_old.py make OUT
    start_titan_old.py load OUT CASE MNT
"""
import pathlib
import sys

import torch

import gen_titan_old as titan
import hf
import ranks
from titan_parts import TrainState, shard, started
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.lr_scheduler import LRSchedulersContainer
from torchtitan.components.optimizer import OptimizersContainer
from torchtitan.config.job_config import Checkpoint

CASES = {
    "llama3": (titan.llama3_model, "llama", {}),
    "qwen3": (titan.qwen3_model, "qwen3", dict(head_dim=32)),
    "qwen3_moe": (titan.qwen3_moe_model, "qwen3_moe", dict(head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44)),
    "deepseek_v3": (titan.deepseek_model, "deepseek_v3", hf.MLA),
}


def make(out):
    for name, (_, family, changes) in CASES.items():
        hf.model(hf.config(family, **changes), torch.bfloat16).save_pretrained(pathlib.Path(out) / name)


def load(rank, source, case, mount):
    torch.manual_seed(1 + rank)
    model, adapter = CASES[case][0]()
    with torch.no_grad():
        model.init_weights(buffer_device=torch.device("cpu"))
    shard(model, (2,))
    optimizers = OptimizersContainer([model], torch.optim.AdamW, {"lr": 1e-3})
    schedulers = LRSchedulersContainer(optimizers, lambda step: 1.0)
    options = Checkpoint(enable=True, folder="checkpoint", interval=10, async_mode="disabled", initial_load_path=mount)
    manager = CheckpointManager(dataloader=None, model_parts=[model], optimizers=optimizers, lr_schedulers=schedulers,
                                states={"train_state": TrainState()}, checkpoint_config=options, sd_adapter=adapter, base_folder=f"{source}/dump")
    assert manager.load(step=-1), "nothing was loaded"
    manager.close()
    started(manager.states["model"].state_dict(), adapter.from_hf(hf.folder(source)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", out]:
            make(out)
        case ["load", out, name, mount]:
            ranks.run(2, load, f"{out}/{name}", name, mount)
