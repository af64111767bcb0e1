"""transformers models saved by training code that never calls save_pretrained.

    gen_transformers.py OUT

The state dict is the model's own, as transformers holds it in memory, written by torch.save or torch DCP. The reference is what
save_pretrained of the same model writes.
"""
import sys

import torch
import torch.distributed.checkpoint as dcp

import hf
from case import Case

PACKAGES = ("torch", "transformers")
FAMILIES = {
    "llama": dict(tie_word_embeddings=True),
    "mistral": dict(head_dim=32),
    "mixtral": dict(num_local_experts=3),
    "qwen2": dict(),
    "qwen3": dict(head_dim=32, tie_word_embeddings=True),
    "qwen3_moe": dict(head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44, decoder_sparse_step=2),
    "gemma": dict(head_dim=32, tie_word_embeddings=True),
    "gemma2": dict(head_dim=32, tie_word_embeddings=True),
    "phi3": dict(),
    "deepseek_v3": hf.MLA,
    "gpt_oss": dict(num_local_experts=4, num_experts_per_tok=2, head_dim=32),
    "llama4_text": dict(head_dim=16, num_local_experts=4, intermediate_size_mlp=104, interleave_moe_layer_step=2),
}


def write_dcp(state, folder):
    dcp.save({"model": state, "step": 7}, checkpoint_id=folder, no_dist=True)


def write_dcp_lightning(state, folder):
    """Lightning's folder of an FSDP run: optimizers are numbered. Beside them a loop's own tensors."""
    moments = {"state": {name: {"exp_avg": torch.zeros_like(value)} for name, value in state.items()}}
    dcp.save({"model": {"model." + name: value for name, value in state.items()}, "optimizer_0": moments, "ema": {"decay": torch.ones(1)}}, checkpoint_id=folder, no_dist=True)
    torch.save({"epoch": 0, "state_dict": {}, "loops": {}}, folder / "meta.pt")


def write_dcp_flat(state, folder):
    dcp.save(dict(state), checkpoint_id=folder, no_dist=True)


def write_torch(state, folder):
    torch.save(state, folder / "pytorch_model.bin")


def write_pt(state, folder):
    """A trainer's own file: the state dict under a key, beside other things."""
    torch.save({"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}, "step": 7},
               folder / "checkpoint.pt")


def prefixed(prefix):
    return lambda state: {prefix + k: v for k, v in state.items()}


def compiled_blocks(state):
    """Every block compiled by itself: the wrapper's name stands in the middle."""
    return {k.replace(".self_attn.", "._orig_mod.self_attn.").replace(".mlp.", "._orig_mod.mlp."): v for k, v in state.items()}


WRITERS = {"dcp": write_dcp, "dcplightning": write_dcp_lightning, "dcpflat": write_dcp_flat, "bin": write_torch, "pt": write_pt}


def one(out, family, writer, dtype, rename=None, label="", **changes):
    made = hf.model(hf.config(family, **{**FAMILIES[family], **changes}), dtype)
    reference, config = hf.saved(made)
    short = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
    case = Case(out, f"tf-{family}-{writer}-{short}{label}", system="transformers", family=family, packages=PACKAGES)
    case.config(config)
    state = made.state_dict()
    WRITERS[writer](rename(state) if rename else state, case.source)
    case.done(reference, by="save_pretrained of the same model", special=f"state dict as in memory, {writer}{label}")


def main(out):
    for family in FAMILIES:
        one(out, family, "dcp", torch.float32)
        one(out, family, "bin", torch.bfloat16)
    one(out, "qwen3_moe", "dcpflat", torch.bfloat16)
    one(out, "llama", "dcplightning", torch.float32, tie_word_embeddings=False)
    one(out, "mixtral", "pt", torch.float16)
    one(out, "qwen2", "pt", torch.float32, prefixed("module."), "-ddp")
    one(out, "llama", "pt", torch.float32, prefixed("_orig_mod."), "-compiled")
    one(out, "qwen3", "bin", torch.float32, prefixed("module._orig_mod."), "-ddp-compiled")
    one(out, "mistral", "dcp", torch.bfloat16, compiled_blocks, "-compiled-blocks")
    one(out, "qwen3", "dcp", torch.float32, prefixed("_fsdp_wrapped_module."), "-fsdp1-wrapped")
    one(out, "llama", "dcp", torch.bfloat16, prefixed("module."), "-untied-ddp", tie_word_embeddings=False)


if __name__ == "__main__":
    main(sys.argv[1])
