"""torchtitan starts from a mount: its own models, sharded by FSDP2 on two gloo ranks, and its CheckpointManager. 0.3.0 or 0.2.2,
whichever the environment has.

    start_titan.py make OUT           writes Hugging Face folders OUT/CASE
    start_titan.py load OUT CASE MNT  loads MNT as initial_load_path, and compares every parameter with the adapter's from_hf
"""
import pathlib
import sys
from importlib.metadata import version

import torch

import hf
import ranks
from titan_parts import TrainState, shard, started

IS_OLD = version("torchtitan").startswith("0.2.")
if IS_OLD:
    import gen_titan_old as titan
    from torchtitan.components.checkpoint import CheckpointManager
    from torchtitan.components.lr_scheduler import LRSchedulersContainer
    from torchtitan.components.optimizer import OptimizersContainer
    from torchtitan.config.job_config import Checkpoint
else:
    import gen_titan as titan
    from torchtitan.components.checkpointer.dcp import CheckpointManager
    from torchtitan.components.optimizer.lr_scheduler import LRSchedulersContainer
    from torchtitan.components.optimizer.optimizer import OptimizersContainer, default_adamw

# Family and changes of the tiny config; the functions of gen_titan and gen_titan_old that make the model.
CASES = {
    "llama3": ("llama", {}, "llama_config", "llama3_model"),
    "llama3-tied": ("llama", dict(tie_word_embeddings=True), "tied_llama_config", None),
    "qwen3": ("qwen3", dict(head_dim=32), "qwen3_config", "qwen3_model"),
    "qwen3_moe": ("qwen3_moe", dict(head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44), "qwen3_moe_config", "qwen3_moe_model"),
    "deepseek_v3": ("deepseek_v3", hf.MLA, "deepseek_config", "deepseek_model"),
}


def maker(case):
    *_, new, old = CASES[case]
    name = old if IS_OLD else new
    return None if name is None else getattr(titan, name)


def make(out):
    for name, (family, changes, *_) in CASES.items():
        if maker(name):
            hf.model(hf.config(family, **changes), torch.bfloat16).save_pretrained(pathlib.Path(out) / name)


def built(case):
    """The sharded model, and its adapter."""
    if IS_OLD:
        model, adapter = maker(case)()
        with torch.no_grad():
            model.init_weights(buffer_device=torch.device("cpu"))
    else:
        config, adapter_class = maker(case)()
        model, adapter = config.build(), adapter_class(config, None)
    shard(model, (2,))
    return model, adapter


def manager(model, adapter, mount, folder):
    settings = dict(enable=True, folder="checkpoint", interval=10, initial_load_path=mount)
    if IS_OLD:
        optimizers = OptimizersContainer([model], torch.optim.AdamW, {"lr": 1e-3})
        schedulers = LRSchedulersContainer(optimizers, lambda step: 1.0)
        options, named = [], {"checkpoint_config": Checkpoint(**settings, async_mode="disabled")}
    else:
        optimizers = OptimizersContainer(default_adamw(lr=1e-3), model_parts=[model])
        schedulers = LRSchedulersContainer.Config().build(optimizers=optimizers, training_steps=10)
        options, named = [CheckpointManager.Config(**settings)], {}
    return CheckpointManager(*options, **named, dataloader=None, model_parts=[model], optimizers=optimizers, lr_schedulers=schedulers,
                             states={"train_state": TrainState()}, sd_adapter=adapter, base_folder=folder)


def load(rank, source, case, mount):
    torch.manual_seed(1 + rank)
    model, adapter = built(case)
    checkpoints = manager(model, adapter, mount, f"{source}/dump")
    assert checkpoints.load(step=-1), "nothing was loaded"
    checkpoints.close()
    started(checkpoints.states["model"].state_dict(), adapter.from_hf(hf.folder(source)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", out]:
            make(out)
        case ["load", out, name, mount]:
            ranks.run(2, load, f"{out}/{name}", name, mount)
