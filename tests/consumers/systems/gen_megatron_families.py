"""Megatron's further families, as Megatron-Bridge names them, in rank files of two tensor-parallel ranks and in DCP.

    gen_megatron_families.py OUT

The reference is the Hugging Face model that was fused and split: names and layouts are those of Megatron-Bridge 0.6's mappings
(models/*/..._bridge.py), whose export needs a GPU.
"""
import argparse
import pathlib
import sys

import torch

import hf
from case import Case
from gen_layouts import BY, dcp_case

TP = 2
HEADS = dict(num_attention_heads=8, num_key_value_heads=4, head_dim=16, vocab_size=264)
NORMS = {"input_layernorm": "self_attention.linear_qkv.layer_norm", "post_attention_layernorm": "mlp.linear_fc1.layer_norm"}
SPARSE = {**NORMS, "post_attention_layernorm": "pre_mlp_layernorm."}
BEHIND = {"post_attention_layernorm": "self_attention.linear_proj.post_layernorm.", "post_feedforward_layernorm": "mlp.linear_fc2.post_layernorm."}
AROUND = {**BEHIND, "input_layernorm": "self_attention.linear_qkv.layer_norm", "pre_feedforward_layernorm": "mlp.linear_fc1.layer_norm"}
MLA = {"q_a_proj": "linear_q_down_proj", "q_b_proj": "linear_q_up_proj", "q_a_layernorm": "linear_q_up_proj.layer_norm", "kv_a_proj_with_mqa": "linear_kv_down_proj",
       "kv_b_proj": "linear_kv_up_proj", "kv_a_layernorm": "linear_kv_up_proj.layer_norm", "q_norm": "q_layernorm", "k_norm": "k_layernorm", "o_proj": "linear_proj"}
EXPERT = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def own_norm(stem, kind):
    """`x.layer_norm_weight` of a fused norm, `x.weight` of one that stands alone."""
    return f"{stem}{kind}" if stem.endswith(".") else f"{stem}_{kind}"


def layer(mine, groups, norms):
    out = {}
    for kind in ("weight", "bias"):
        if f"self_attn.k_proj.{kind}" in mine:
            q, k, v = (mine[f"self_attn.{x}_proj.{kind}"].chunk(groups) for x in "qkv")
            out[f"self_attention.linear_qkv.{kind}"] = torch.cat([part for group in zip(q, k, v) for part in group])
        for theirs, own in norms.items():
            if f"{theirs}.{kind}" in mine:
                out[own_norm(own, kind)] = mine[f"{theirs}.{kind}"]
        for theirs, own in MLA.items():
            if f"self_attn.{theirs}.{kind}" in mine:
                out[f"self_attention.{own}_{kind}" if own.endswith("layer_norm") else f"self_attention.{own}.{kind}"] = mine[f"self_attn.{theirs}.{kind}"]
    if "self_attn.sinks" in mine:
        out["self_attention.core_attention.softmax_offset"] = mine["self_attn.sinks"]
    return {**out, **feed_forward({name.replace("block_sparse_moe.", "mlp."): value for name, value in mine.items()})}


def feed_forward(mine):
    out = {}
    for theirs, own in (("gate.weight", "router.weight"), ("router.weight", "router.weight"), ("router.bias", "router.bias"),
                        ("e_score_correction_bias", "router.expert_bias")):
        if f"mlp.{theirs}" in mine:
            out[f"mlp.{own}"] = mine[f"mlp.{theirs}"]
    if "mlp.experts.gate_up_proj" in mine:
        return {**out, **interleaved(mine)}
    mine = {".".join(EXPERT.get(part, part) for part in name.split(".")): value for name, value in mine.items()}
    for theirs in sorted({name.rsplit(".", 2)[0] for name in mine if name.endswith(".down_proj.weight")}):
        stem, _, number = theirs.partition(".experts.")
        own = f"mlp.experts.linear_fc{{}}.weight{number}" if number else f"{theirs}.linear_fc{{}}.weight"
        gate = [mine[f"{theirs}.gate_proj.weight"]] if f"{theirs}.gate_proj.weight" in mine else []
        out[own.format(1)] = torch.cat([*gate, mine[f"{theirs}.up_proj.weight"]])
        out[own.format(2)] = mine[f"{theirs}.down_proj.weight"]
    return out


def interleaved(mine):
    """gpt-oss: the gate's rows, then the others, out of columns that alternate."""
    out = {}
    for e in range(mine["mlp.experts.down_proj"].shape[0]):
        for theirs, own in (("gate_up_proj", "weight"), ("gate_up_proj_bias", "bias")):
            value = mine[f"mlp.experts.{theirs}"][e]
            value = value.t() if value.dim() == 2 else value
            out[f"mlp.experts.linear_fc1.{own}{e}"] = torch.cat([value[::2], value[1::2]])
        out[f"mlp.experts.linear_fc2.weight{e}"] = mine["mlp.experts.down_proj"][e].t()
        out[f"mlp.experts.linear_fc2.bias{e}"] = mine["mlp.experts.down_proj_bias"][e]
    return out


def whole(tensors, c, norms):
    pad = lambda value: torch.cat([value, torch.full((320 - value.shape[0], value.shape[1]), 7.0)])  # noqa: E731
    out = {"embedding.word_embeddings.weight": pad(tensors["model.embed_tokens.weight"])}
    if "lm_head.weight" in tensors:
        out["output_layer.weight"] = pad(tensors["lm_head.weight"])
    for name in ("weight", "bias"):
        if f"model.norm.{name}" in tensors:
            out[f"decoder.final_layernorm.{name}"] = tensors[f"model.norm.{name}"]
    for i in range(c["num_hidden_layers"]):
        mine = {k.removeprefix(f"model.layers.{i}."): v for k, v in tensors.items() if k.startswith(f"model.layers.{i}.")}
        sparse = any("experts" in name for name in mine)
        stems = {**norms, **({"post_attention_layernorm": SPARSE["post_attention_layernorm"]} if sparse else {})}
        if "self_attn.kv_b_proj.weight" in mine:
            stems["input_layernorm"] = "input_layernorm."
        out.update({f"decoder.layers.{i}.{name}": value for name, value in layer(mine, c["num_key_value_heads"], stems).items()})
    return out


ROWS = ("embedding.", "output_layer.", "linear_qkv.weight", "linear_qkv.bias", "linear_q_up_proj.weight", "linear_kv_up_proj.weight", "softmax_offset")


def part(name, value, rank, norms_too, gated):
    """What a rank has of a tensor."""
    if ".linear_fc1." in name and "layer_norm" not in name:
        halves = value.chunk(2) if gated else (value,)
        return torch.cat([half.chunk(TP)[rank] for half in halves])
    if "linear_fc2.weight" in name or name.endswith("linear_proj.weight"):
        return value.chunk(TP, 1)[rank]
    rows = any(word in name for word in ROWS) or norms_too and name.endswith(("q_layernorm.weight", "k_layernorm.weight"))
    return value.chunk(TP)[rank] if rows else value


def rank_files(out, family, norms, special, norms_too=False, gated=True, **changes):
    tensors, c = hf.saved(hf.model(hf.config(family, **{**HEADS, **changes})))
    state = whole(tensors, c, norms)
    case = Case(out, f"megatron-{family}", system="megatron-lm", family=family, packages=("torch", "transformers"))
    case.config(c)
    for rank in range(TP):
        at = case.source / "iter_0000002" / f"mp_rank_{rank:02d}"
        at.mkdir(parents=True)
        own = {name: part(name, value, rank, norms_too, gated).clone() for name, value in state.items()}
        args = argparse.Namespace(num_layers=c["num_hidden_layers"], tensor_model_parallel_size=TP, pipeline_model_parallel_size=1, swiglu=gated, iteration=2)
        torch.save({"args": args, "checkpoint_version": 3.0, "iteration": 2, "model": own}, at / "model_optim_rng.pt")
    (case.source / "latest_checkpointed_iteration.txt").write_text("2")
    case.done(tensors, by=BY, source="source/iter_0000002", special=special)


def expert_axis(out):
    """torch_dist of a model whose layers are alike: layers and experts are axes."""
    tensors, c = hf.saved(hf.model(hf.config("gpt_oss", **HEADS, num_local_experts=4, num_experts_per_tok=2)))
    state, layers = whole(tensors, c, NORMS), c["num_hidden_layers"]
    joined = {name: value for name, value in state.items() if not name.startswith("decoder.layers.")}
    for name in [name.removeprefix("decoder.layers.0.") for name in state if name.startswith("decoder.layers.0.")]:
        stem, kind = name.rsplit(".", 1)
        if stem.startswith("mlp.experts.") and not kind.endswith("0"):
            continue
        numbered = [kind[:-1] + str(e) for e in range(4)] if stem.startswith("mlp.experts.") else [kind]
        own = [torch.stack([state[f"decoder.layers.{i}.{stem}.{k}"] for k in numbered]) for i in range(layers)]
        if len(numbered) > 1:
            joined[f"decoder.layers.{stem.replace('mlp.experts.', 'mlp.experts.experts.')}.{kind[:-1]}"] = torch.stack(own)
        else:
            joined[f"decoder.layers.{name}"] = torch.cat(own)
    dcp_case(out, "megatron-gpt_oss-axes", "megatron-lm", "gpt_oss", "iter_0000002", joined, tensors, c, "DCP, layers and experts are axes")
    (pathlib.Path(out) / "megatron-gpt_oss-axes" / "source/iter_0000002/metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')


def main(out):
    rank_files(out, "gemma3_text", AROUND, "Transformer Engine's names, four norms a layer, tied", tie_word_embeddings=True)
    rank_files(out, "exaone4", BEHIND, "norms behind attention and feed-forward")
    rank_files(out, "nemotron", NORMS, "layer norms with biases, no gate", gated=False)
    rank_files(out, "olmoe", NORMS, "experts grouped", num_experts=4, num_experts_per_tok=2, head_dim=12, num_key_value_heads=8)
    rank_files(out, "minimax_m2", NORMS, "norms of all heads, split by TP; expert_bias", norms_too=True, num_local_experts=4, num_experts_per_tok=2)
    rank_files(out, "deepseek_v2", NORMS, "MLA, a dense layer, shared experts", **{**hf.MLA, "num_attention_heads": 6, "vocab_size": 264})
    rank_files(out, "gpt_oss", NORMS, "sinks, biases everywhere, experts grouped", num_local_experts=4, num_experts_per_tok=2)
    expert_axis(out)


if __name__ == "__main__":
    main(sys.argv[1])
