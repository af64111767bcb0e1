"""torchtitan 0.3.0 starts from a mount: its own models, sharded by FSDP2 on two gloo ranks, and its CheckpointManager.

    start_titan.py make OUT           writes Hugging Face folders OUT/CASE
    start_titan.py load OUT CASE MNT  loads MNT as initial_load_path, and compares every parameter with the adapter's from_hf
"""
import pathlib
import sys

import torch

import gen_titan as titan
import hf
import ranks
from titan_parts import TrainState, shard, started
from torchtitan.components.checkpointer.dcp import CheckpointManager
from torchtitan.components.optimizer.lr_scheduler import LRSchedulersContainer
from torchtitan.components.optimizer.optimizer import OptimizersContainer, default_adamw

MOE = dict(head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44)
CASES = {
    "llama3": (titan.llama_config, "llama", {}),
    "llama3-tied": (lambda: titan.llama_config(tied=True), "llama", dict(tie_word_embeddings=True)),
    "qwen3": (titan.qwen3_config, "qwen3", dict(head_dim=32)),
    "qwen3_moe": (titan.qwen3_moe_config, "qwen3_moe", MOE),
    "deepseek_v3": (titan.deepseek_config, "deepseek_v3", hf.MLA),
}


def make(out):
    for name, (_, family, changes) in CASES.items():
        hf.model(hf.config(family, **changes), torch.bfloat16).save_pretrained(pathlib.Path(out) / name)


def load(rank, source, case, mount):
    make, _, _ = CASES[case]
    config, adapter = make()
    torch.manual_seed(1 + rank)
    model = config.build()
    shard(model, (2,))
    optimizers = OptimizersContainer(default_adamw(lr=1e-3), model_parts=[model])
    schedulers = LRSchedulersContainer.Config().build(optimizers=optimizers, training_steps=10)
    options = CheckpointManager.Config(enable=True, folder="checkpoint", interval=10, initial_load_path=mount)
    manager = CheckpointManager(options, dataloader=None, model_parts=[model], optimizers=optimizers, lr_schedulers=schedulers,
                                states={"train_state": TrainState()}, sd_adapter=adapter(config, None), base_folder=f"{source}/dump")
    assert manager.load(step=-1), "nothing was loaded"
    manager.close()
    started(manager.states["model"].state_dict(), adapter(config, None).from_hf(hf.folder(source)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", out]:
            make(out)
        case ["load", out, name, mount]:
            ranks.run(2, load, f"{out}/{name}", name, mount)
