"""torchtitan 0.3.0 with LoRA by its own converter: base and adapter in one step folder. And the fused wqkv of its spring 2026.

    gen_titan_lora.py OUT

LoRA is trained by torchtitan's LoRAConverter and saved by its CheckpointManager. torchtitan has no converter of adapters: the reference
is the adapter's to_hf of the base, applied to each lora_b as columns of a weight with those rows.

wqkv stood in checkpoints from 2026-04-16 (#2878) to 2026-06-18 (#3656), when saving began to split it; no release has it. The state
is the release's own model with the hook that splits it taken off, saved by its own CheckpointManager.
"""
import os
import sys

import torch

import gen_titan as titan
import hf
import ranks
from case import Case
from titan_parts import TrainState, fill, shard, whole
from torchtitan.components.lora import LoRAConverter
from torchtitan.models.common.attention import FusedQKVLinear

RANK, ALPHA = 4, 16.0


def lora(make, targets):
    config, adapter = make()
    return LoRAConverter(LoRAConverter.Config(rank=RANK, alpha=ALPHA, target_modules=targets)).convert(config) or config, adapter


def train_and_save(rank, folder, make, tensors, world, targets, seen):
    config, adapter_class = make()
    adapter = adapter_class(config, None)
    if targets is not None:
        config, _ = lora(make, targets)
    torch.manual_seed(1)
    model = config.build()
    shard(model, (world,))
    base = {**{k: whole(v) for k, v in model.state_dict().items()}, **adapter.from_hf(tensors)}
    base.update({k: torch.randn_like(v) for k, v in base.items() if "lora_" in k})
    fill(model, base)
    if targets is None:
        for module in model.modules():
            if isinstance(module, FusedQKVLinear):
                module._state_dict_hooks.clear()
    optimizers = titan.OptimizersContainer(titan.default_adamw(lr=1e-3), model_parts=[model])
    schedulers = titan.LRSchedulersContainer.Config().build(optimizers=optimizers, training_steps=10)
    manager = titan.CheckpointManager(titan.CheckpointManager.Config(enable=True, folder="checkpoint", interval=10), dataloader=None,
                                      model_parts=[model], optimizers=optimizers, lr_schedulers=schedulers,
                                      states={"train_state": TrainState()}, sd_adapter=adapter, base_folder=str(folder))
    manager.save(10)
    manager.close()
    state = {k: whole(v) for k, v in manager.states["model"].state_dict().items()}
    if rank == 0:
        torch.save(state, seen)


def to_peft(config, adapter_class, state):
    """Each lora_b through the adapter's to_hf, as the first columns of its weight; a fused wqkv through the split that a save makes."""
    base = {k: v for k, v in state.items() if "lora_" not in k}
    out = {}
    for name in (k for k in state if k.endswith("lora_b.weight")):
        module = name.removesuffix(".lora_b.weight")
        rows, columns = state[name], state[f"{module}.lora_a.weight"]
        for part, piece in split(module, rows).items():
            padded = torch.zeros_like(base[f"{part}.weight"])
            padded[:, :RANK] = piece
            theirs, value = only(adapter_class(config, None).to_hf({f"{part}.weight": padded}))
            stem = f"base_model.model.{theirs.removesuffix('.weight')}"
            out[f"{stem}.lora_A.weight"], out[f"{stem}.lora_B.weight"] = columns, value[:, :RANK]
    return out


def split(module, rows):
    if not module.endswith("wqkv"):
        return {module: rows}
    group = titan.HEADS // titan.KV + 2
    blocks = rows.reshape(titan.KV, group, -1, RANK)
    stem = module.removesuffix("wqkv")
    return {stem + name: blocks[:, at].reshape(-1, RANK) for name, at in (("wq", slice(0, group - 2)), ("wk", group - 2), ("wv", group - 1))}


def only(tensors):
    (pair,) = tensors.items()
    return pair


def one(out, name, make, family, *, world=2, targets=None, show=None, special="", **changes):
    tensors, config = hf.saved(hf.model(hf.config(family, **changes)))
    case = Case(out, f"titan030-{name}", system="torchtitan", family=family, packages=titan.PACKAGES)
    case.config(config)
    seen = case.folder / "seen.pt"
    ranks.run(world, train_and_save, case.source, make, tensors, world, targets, seen)
    state = torch.load(seen)
    os.remove(seen)
    where = dict(source="source/checkpoint/step-10", special=special)
    if show == "adapter":
        reference = to_peft(*make(), state)
        case.done(reference, by="its adapter's to_hf, applied to each adapter's rows", args=["--adapter", "--lora-alpha", str(ALPHA)], **where)
    else:
        case.done(tensors, by="the Hugging Face model that was loaded", **where)


def main(out):
    llama, qwen3 = titan.llama_config, titan.qwen3_config
    apart = ["wq", "wk", "wo", "w1"]
    one(out, "lora-llama3-base", lambda: llama(fuse=False), "llama", targets=apart, special="LoRA step folder, shown as its base")
    one(out, "lora-llama3-adapter", lambda: llama(fuse=False), "llama", world=3, targets=apart, show="adapter", special="LoRA step folder, shown as its adapter")
    one(out, "lora-llama3-fused-adapter", llama, "llama", targets=["wqkv", "w2"], show="adapter", special="LoRA on the fused wqkv")
    one(out, "lora-qwen3-fused-adapter", qwen3, "qwen3", targets=["wqkv", "w3"], show="adapter", special="LoRA on the fused wqkv, no permutation", head_dim=32)
    fused = "wqkv in the file, as in the spring of 2026"
    one(out, "wqkv-llama3-w3", llama, "llama", world=3, special=fused)
    one(out, "wqkv-qwen3-w2", qwen3, "qwen3", special=fused, head_dim=32)


if __name__ == "__main__":
    main(sys.argv[1])
