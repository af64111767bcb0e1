"""torchtitan's spellings between its releases, which no package holds: real DCP of the state that the release's adapter makes of a
Hugging Face model, its names put back to those of the time.

    gen_titan_between.py OUT

From 2026-06-10 (#3626) the experts were moe.experts.w1_EFD, from 2026-07-16 (#3859) moe.routed_experts.inner_experts.w1_EFD.
"""
import sys

import torch
import torch.distributed.checkpoint as dcp

import gen_titan as titan
import hf
from case import Case


def one(out, name, make, family, **changes):
    tensors, config = hf.saved(hf.model(hf.config(family, **changes), torch.bfloat16))
    model, adapter = make()
    state = {k.replace("routed_experts.inner_experts.", "experts."): v for k, v in adapter(model, None).from_hf(dict(tensors)).items()}
    assert any(".moe.experts.w1_EFD" in k for k in state)
    state |= {k.replace("experts.w1_EFD", "tokens_per_expert_E"): torch.ones(len(v)) for k, v in state.items() if "w1_EFD" in k}
    case = Case(out, f"titan-between-{name}", system="torchtitan", family=family, packages=titan.PACKAGES)
    case.config(config)
    dcp.save(state, checkpoint_id=case.source / "step-10", no_dist=True)
    case.done(tensors, by="the Hugging Face model that was loaded", source="source/step-10", special="moe.experts.w1_EFD, summer 2026: the documented names through DCP")


if __name__ == "__main__":
    one(sys.argv[1], "qwen3moe", titan.qwen3_moe_config, "qwen3_moe", head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44)
    one(sys.argv[1], "deepseekv3", titan.deepseek_config, "deepseek_v3", **hf.MLA)
