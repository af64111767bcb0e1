"""Checkpoints of trainers that do not install on a CPU, by hand after their sources, from tiny transformers models.

    gen_layouts.py OUT

torchtitan's Qwen3.5 goes through its own adapter's from_hf; torch's DCP saves what is sharded, on two ranks of gloo. The reference is
what save_pretrained writes of the same model.
"""
import json
import pathlib
import sys
from types import SimpleNamespace

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from transformers import AutoModelForImageTextToText

import case
import hf
import ranks
from case import Case

BY = "save_pretrained of the same model"
MOE = dict(head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44)
BF16 = torch.bfloat16
GLM = dict(head_dim=32, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=44, first_k_dense_replace=1, n_shared_experts=1, n_group=2, topk_group=1)


def save(rank, state, folder):
    """One rank of two: rows are sharded, what has none is a copy."""
    mesh = init_device_mesh("cpu", (2,))
    sharded = {name: distribute_tensor(value, mesh, [Shard(0) if value.dim() else Replicate()]) for name, value in state.items()}
    dcp.save(sharded, checkpoint_id=str(folder))


def dcp_case(out, name, system, family, folder, state, tensors, config, special, source=None):
    case = Case(out, name, system=system, family=family, packages=("torch", "torchtitan", "transformers"))
    case.config(config)
    at = case.source / folder
    at.mkdir(parents=True)
    ranks.run(2, save, state, at)
    case.done(tensors, by=BY, source=f"source/{source or folder}", special=special)


# ---- torchtitan's Qwen3.5 ---------------------------------------------------------------------------------------------------------

VISION = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=4, num_position_embeddings=16, out_hidden_size=96, patch_size=4, spatial_merge_size=2, temporal_patch_size=2)
LINEAR = dict(head_dim=32, linear_conv_kernel_dim=4, linear_key_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4, linear_value_head_dim=8,
              layer_types=["linear_attention", "linear_attention", "full_attention"])
SPARSE = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=44, shared_expert_intermediate_size=52)


def titan_qwen3_5(out, family, text, special):
    Adapter = titan_adapter("qwen3_5", "Qwen35")
    text = {**hf.SHAPE, **LINEAR, **text}
    cfg = hf.AutoConfig.for_model(family, text_config=text, vision_config=VISION, tie_word_embeddings=False)
    made = hf.model(cfg, cls=AutoModelForImageTextToText)
    tensors, config = hf.saved(made)
    parts = SimpleNamespace(in_proj_q=SimpleNamespace(out_features=16), in_proj_v=SimpleNamespace(out_features=32))
    shell = SimpleNamespace(layers=[SimpleNamespace(delta_net=parts)] * 3, enable_weight_tying=False)
    adapter = Adapter(shell, None)
    state = adapter.from_hf(grouped(tensors))
    dcp_case(out, f"titan030-{family}", "torchtitan", family, "checkpoint/step-10", state, tensors, config, special)


def titan_adapter(package, name):
    """The adapter's class. The models beside it need kernels of a GPU library, which the adapter does not."""
    import importlib
    import types
    import torchtitan.models
    shell = types.ModuleType(f"torchtitan.models.{package}")
    shell.__path__ = [f"{path}/{package}" for path in torchtitan.models.__path__]
    model = types.ModuleType(f"{shell.__name__}.model")
    setattr(model, f"{name}Model", SimpleNamespace(Config=object))
    sys.modules.update({shell.__name__: shell, model.__name__: model})
    return getattr(importlib.import_module(f"{shell.__name__}.state_dict_adapter"), f"{name}StateDictAdapter")


def grouped(tensors):
    """The experts of a layer as the adapter expects them: one tensor [E, input, output], gate before up."""
    out = {name: value for name, value in tensors.items() if ".mlp.experts." not in name}
    for i in range(3):
        at = f"model.language_model.layers.{i}.mlp.experts."
        stack = lambda part: torch.stack([tensors[f"{at}{e}.{part}.weight"] for e in range(4)]).transpose(1, 2)  # noqa: E731
        if f"{at}0.up_proj.weight" in tensors:
            out[at + "gate_up_proj"] = torch.cat([stack("gate_proj"), stack("up_proj")], dim=2).contiguous()
            out[at + "down_proj"] = stack("down_proj").contiguous()
    return out


def titan_muse(out):
    cfg = hf.AutoConfig.for_model("muse_glimmer", projector_hidden_size=32, text_config={**hf.SHAPE, "head_dim": 16},
                                  vision_config=dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_hidden_layers=2, pos_emb_height=4, pos_emb_width=4, patch_size=4,
                                                     layer_types=["window_attention", "full_attention"]))
    tensors, config = hf.saved(hf.model(cfg, cls=AutoModelForImageTextToText))
    attention = SimpleNamespace(n_heads=hf.SHAPE["num_attention_heads"], n_kv_heads=hf.SHAPE["num_key_value_heads"], head_dim=16)
    shell = SimpleNamespace(layers=[SimpleNamespace(attention=attention)], dim=hf.SHAPE["hidden_size"], vision_encoder=SimpleNamespace(num_heads=4))
    adapter = titan_adapter("muse_glimmer", "MuseGlimmer")(shell, None)
    adapter._validate_hf_rope_config = lambda *_: None
    dcp_case(out, "titan030-muse_glimmer", "torchtitan", "muse_glimmer", "checkpoint/step-10", adapter.from_hf(tensors), tensors, config, "Meta's rotary order in text and vision")


KIMI = {**hf.MLA, "num_hidden_layers": 3, "q_lora_rank": 24}


def titan_kimi(out):
    """The language model is DeepSeek-V3's; the names of the vision tower are those of the released files."""
    made = hf.model(hf.config("deepseek_v3", **KIMI, num_nextn_predict_layers=0))
    tensors, text = hf.saved(made)
    tensors = {f"language_model.{name}": value for name, value in tensors.items()}
    tensors.update(kimi_vision(32, 2, 4))
    config = {"model_type": "kimi_k25", "architectures": ["KimiK25ForConditionalGeneration"], "text_config": {**text, "model_type": "kimi_k2"},
              "vision_config": {"hidden_size": 32, "patch_size": 4, "num_hidden_layers": 2}, "tie_word_embeddings": False}
    adapter = titan_adapter("kimi_k2_7", "KimiK25")(kimi_shell(), None)
    adapter._validate_hf_rope_config = lambda *_: None
    state = adapter.from_hf(dict(tensors))
    case.same(adapter.to_hf(state), tensors)
    dcp_case(out, "titan030-kimi_k25", "torchtitan", "kimi_k25", "checkpoint/step-10", state, tensors, config, "vision tower, MLA, a dense layer")


def kimi_shell():
    return SimpleNamespace(vision_encoder=SimpleNamespace(patch_size=4, in_channels=3), layers=[SimpleNamespace(attention=SimpleNamespace(q_lora_rank=24), moe=SimpleNamespace(num_experts=4))] * 3)


def kimi_vision(width, layers, patch):
    made = lambda *shape: torch.randn(*shape) * 0.05  # noqa: E731
    out = {"vision_tower.patch_embed.proj.weight": made(width, 3, patch, patch), "vision_tower.patch_embed.proj.bias": made(width), "vision_tower.patch_embed.pos_emb.weight": made(4, 4, width)}
    linear = {"vision_tower.encoder.final_layernorm": (width,), "mm_projector.pre_norm": (width,), "mm_projector.proj.0": (4 * width, 4 * width), "mm_projector.proj.2": (96, 4 * width)}
    for i in range(layers):
        at = f"vision_tower.encoder.blocks.{i}."
        linear.update({at + "norm0": (width,), at + "norm1": (width,), at + "wqkv": (3 * width, width), at + "wo": (width, width), at + "mlp.fc0": (40, width), at + "mlp.fc1": (width, 40)})
    for name, shape in linear.items():
        out[f"{name}.weight"], out[f"{name}.bias"] = made(*shape), made(shape[0])
    return out


# ---- prime-rl ---------------------------------------------------------------------------------------------------------------------

def prime(out, family, special, **changes):
    cfg = hf.config(family, **changes)
    tensors, config = hf.saved(hf.model(cfg))
    state = {f"app.model.{name}": value for name, value in prime_state(tensors, config).items()}
    dcp_case(out, f"prime-rl-{family}", "prime-rl", family, "checkpoints/step_2/trainer", state, tensors, config, special, "checkpoints/step_2")


def experts_of(config):
    return next(config[key] for key in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(key))


def prime_state(tensors, config):
    out, experts = {}, experts_of(config)
    for name, value in tensors.items():
        front, _, back = name.partition(".mlp.")
        if back == "gate.weight":
            out[f"{front}.mlp.router.gate.weight"] = value
        elif back == "gate.e_score_correction_bias":
            out[f"{front}.mlp.expert_bias"] = value
        elif back.startswith("shared_experts."):
            part = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}[back.split(".")[1]]
            # Its own code makes matrices, and its converter takes those with a first axis of length 1 as well.
            out[f"{front}.mlp.shared_expert.{part}"] = value[None] if part == "w3" else value
        elif back.startswith("experts."):
            for part, own in (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")):
                if back == f"experts.0.{part}.weight":
                    out[f"{front}.mlp.experts.{own}"] = torch.stack([tensors[f"{front}.mlp.experts.{e}.{part}.weight"] for e in range(experts)])
        else:
            out[name] = value
    return out


# ---- OLMo-core --------------------------------------------------------------------------------------------------------------------

OLMO = {"model.embed_tokens": "embeddings", "model.norm": "lm_head.norm", "lm_head": "lm_head.w_out", "self_attn.q_proj": "attention.w_q", "self_attn.k_proj": "attention.w_k",
        "self_attn.v_proj": "attention.w_v", "self_attn.o_proj": "attention.w_out", "self_attn.q_norm": "attention.q_norm", "self_attn.k_norm": "attention.k_norm",
        "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2"}
BEHIND = {"post_attention_layernorm": "attention_norm", "post_feedforward_layernorm": "feed_forward_norm"}
BEFORE = {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm"}


def olmo_core(out, family, norms, special, **changes):
    tensors, config = hf.saved(hf.model(hf.config(family, **changes)))
    def own(name):
        name = name.replace("model.layers.", "blocks.")
        for theirs, mine in {**OLMO, **norms}.items():
            name = name.replace(f"{theirs}.weight", f"{mine}.weight")
        return name
    state = {f"model.{own(name)}": value for name, value in tensors.items()}
    dcp_case(out, f"olmo-core-{family}", "olmo-core", family, "step2/model_and_optim", state, tensors, config, special, "step2")
    step = pathlib.Path(out) / f"olmo-core-{family}" / "source/step2"
    (step / "config.json").write_text(json.dumps({"model": {"d_model": 96}}))  # OLMo-core's own
    (step / ".metadata.json").write_text('{"version": "3.0.0"}')


# ---- Megatron-FSDP ----------------------------------------------------------------------------------------------------------------

def megatron_fsdp(out, family, special, **changes):
    tensors, config = hf.saved(hf.model(hf.config(family, **changes)))
    state = {f"model.module.{name}": value for name, value in mcore_split(tensors, config).items()}
    dcp_case(out, f"megatron-fsdp-{family}", "megatron-fsdp", family, "iter_0000002", state, tensors, config, special)


NORMS = {"input_layernorm": "self_attention.linear_qkv.layer_norm_weight", "post_attention_layernorm": "mlp.linear_fc1.layer_norm_weight"}
GEMMA_NORMS = {"input_layernorm": "self_attention.linear_qkv.layer_norm_weight", "post_attention_layernorm": "self_attention.linear_proj.post_layernorm.weight",
               "pre_feedforward_layernorm": "mlp.linear_fc1.layer_norm_weight", "post_feedforward_layernorm": "mlp.linear_fc2.post_layernorm.weight"}


def mcore_split(tensors, c):
    pad = lambda value: torch.cat([value, torch.full((320 - value.shape[0], value.shape[1]), 7.0)])  # noqa: E731
    out = {"embedding.word_embeddings.weight": pad(tensors["model.embed_tokens.weight"]), "decoder.final_layernorm.weight": tensors["model.norm.weight"]}
    if "lm_head.weight" in tensors:
        out["output_layer.weight"] = pad(tensors["lm_head.weight"])
    for i in range(c["num_hidden_layers"]):
        mine = {k.removeprefix(f"model.layers.{i}."): v for k, v in tensors.items() if k.startswith(f"model.layers.{i}.")}
        layer = mcore_layer(mine, c["num_key_value_heads"])
        out.update({f"decoder.layers.{i}.{name}": value for name, value in layer.items()})
    return out


def mcore_layer(mine, groups):
    out = {"self_attention.linear_proj.weight": mine["self_attn.o_proj.weight"]}
    for kind in ("weight", "bias"):
        if f"self_attn.q_proj.{kind}" in mine:
            q, k, v = (mine[f"self_attn.{x}_proj.{kind}"].chunk(groups) for x in "qkv")
            out[f"self_attention.linear_qkv.{kind}"] = torch.cat([part for group in zip(q, k, v) for part in group])
    for x in "qk":
        if f"self_attn.{x}_norm.weight" in mine:
            out[f"self_attention.{x}_layernorm.weight"] = mine[f"self_attn.{x}_norm.weight"]
    for theirs, own in (GEMMA_NORMS if "pre_feedforward_layernorm.weight" in mine else NORMS).items():
        out[own] = mine[f"{theirs}.weight"]
    if "mlp.gate.weight" in mine:
        out["mlp.router.weight"], out["pre_mlp_layernorm.weight"] = mine["mlp.gate.weight"], out.pop("mlp.linear_fc1.layer_norm_weight")
    if "mlp.gate.e_score_correction_bias" in mine:
        out["mlp.router.expert_bias"] = mine["mlp.gate.e_score_correction_bias"]
    for theirs in sorted({name.rsplit(".", 2)[0] for name in mine if name.endswith(".down_proj.weight")}):
        stem, _, number = theirs.partition(".experts.")
        own = f"mlp.experts.linear_fc{{}}.weight{number}{{}}" if number else f"{theirs}.linear_fc{{}}.weight{{}}"
        for part, fc, end in (("gate_proj", 1, "_w"), ("up_proj", 1, "_v"), ("down_proj", 2, "")):
            out[own.format(fc, end)] = mine[f"{theirs}.{part}.weight"]
    return out


# ---- nanotron ---------------------------------------------------------------------------------------------------------------------

def nanotron(out, name, tp, pp, special, family="llama", dtype=torch.float32, **changes):
    tensors, config = hf.saved(hf.model(hf.config(family, **changes), dtype))
    case = Case(out, f"nanotron-{name}", system="nanotron", family=family, packages=("torch", "transformers"))
    case.config(config)
    layers, padded = config["num_hidden_layers"], -(-config["vocab_size"] // tp) * tp
    rows = lambda value: torch.cat([value, torch.full((padded - value.shape[0], value.shape[1]), 7.0, dtype=value.dtype)])  # noqa: E731
    write = lambda *where: parameter(case.source / "10" / "model" / "model", tp, pp, *where)  # noqa: E731
    write("token_position_embeddings/pp_block/token_embedding", 0, "weight", [rows(tensors["model.embed_tokens.weight"])], 0)
    write("lm_head/pp_block", pp - 1, "weight", [rows(tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"]))], 0)
    write("final_layer_norm/pp_block", pp - 1, "weight", [tensors["model.norm.weight"]], None)
    for i in range(layers):
        mine = {k.removeprefix(f"model.layers.{i}."): v for k, v in tensors.items() if k.startswith(f"model.layers.{i}.")}
        at, stage = f"decoder/{i}/pp_block/", i * pp // layers
        write(at + "attn/qkv_proj", stage, "weight", [mine[f"self_attn.{x}_proj.weight"] for x in "qkv"], 0)
        if "self_attn.q_proj.bias" in mine:
            write(at + "attn/qkv_proj", stage, "bias", [mine[f"self_attn.{x}_proj.bias"] for x in "qkv"], 0)
        write(at + "attn/o_proj", stage, "weight", [mine["self_attn.o_proj.weight"]], 1)
        write(at + "mlp/gate_up_proj", stage, "weight", [mine["mlp.gate_proj.weight"], mine["mlp.up_proj.weight"]], 0)
        write(at + "mlp/down_proj", stage, "weight", [mine["mlp.down_proj.weight"]], 1)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            write(at + norm, stage, "weight", [mine[f"{norm}.weight"]], None)
    (case.source / "10" / "model_config.json").write_text(json.dumps({"is_llama_config": True, "rope_interleaved": False}))
    (case.source / "10" / "checkpoint_metadata.json").write_text('{"version": "1.4"}')
    (case.source / "latest.txt").write_text("10")
    case.done(tensors, by=BY, source="source/10", special=special)


def parameter(model, tp, pp, module, stage, name, parts, dim):
    """A parameter of `parts`, each split among the ranks along `dim`; None for what all ranks share."""
    folder = model / module
    folder.mkdir(parents=True, exist_ok=True)
    if dim is None:
        save_file({"data": parts[0]}, folder / f"model_{name}.safetensors")
        return
    whole = torch.cat(parts)
    for rank in range(tp):
        pairs, own, start, local = [], [], 0, 0
        for part in parts:
            size = part.shape[dim] // tp
            begin = start + rank * size
            cut = lambda a, b: "|".join(f"{a},{b},None" if d == dim else "None,None,None" for d in range(part.dim()))  # noqa: E731
            pairs.append(f"{cut(local, local + size)}#{cut(begin, begin + size)}")
            own.append(part.narrow(dim, rank * size, size))
            start, local = start + part.shape[dim], local + size
        header = {"version": "1.4", "unsharded_shape": str(tuple(whole.shape)), "local_global_slices_pairs": ";".join(pairs)}
        file = f"model_{name}_pp-rank-{stage}-of-{pp}_tp-rank-{rank}-of-{tp}.safetensors"
        save_file({"data": torch.cat(own, dim).contiguous()}, folder / file, metadata=header)


def main(out):
    titan_qwen3_5(out, "qwen3_5", {}, "dense, with its vision tower")
    titan_qwen3_5(out, "qwen3_5_moe", SPARSE, "experts, shared expert, vision tower")
    titan_muse(out)
    titan_kimi(out)
    prime(out, "qwen3_moe", "experts stacked", **MOE)
    prime(out, "glm4_moe", "experts stacked, a dense layer, a shared expert with a leading axis, expert_bias", **GLM)
    olmo_core(out, "olmo2", BEHIND, "norms behind attention and feed-forward; its own config.json")
    olmo_core(out, "olmo3", BEHIND, "sliding windows in some layers")
    olmo_core(out, "llama", BEFORE, "its Llama, norms before")
    olmo_core(out, "qwen3", BEFORE, "its Qwen3", head_dim=32)
    megatron_fsdp(out, "llama", "fsdp_dtensor, fc1 in two, padded vocabulary")
    megatron_fsdp(out, "qwen3_moe", "fsdp_dtensor, one tensor for each expert, padded vocabulary", **MOE)
    megatron_fsdp(out, "glm4_moe", "fsdp_dtensor, a dense layer, a shared expert, qkv bias, expert_bias", **GLM, attention_bias=True)
    megatron_fsdp(out, "gemma", "fsdp_dtensor, tied", head_dim=32, tie_word_embeddings=True)
    megatron_fsdp(out, "gemma2", "fsdp_dtensor, tied, four norms a layer", head_dim=32, tie_word_embeddings=True)
    even = dict(num_attention_heads=8, num_key_value_heads=4)
    nanotron(out, "llama-tp2", 2, 1, "two tensor-parallel ranks, padded vocabulary", dtype=BF16, **even)
    nanotron(out, "llama-tp4-pp3", 4, 3, "four tensor-parallel ranks, a stage for each layer", **even)
    nanotron(out, "llama-tp1-tied", 1, 1, "one rank, tied", tie_word_embeddings=True)
    nanotron(out, "qwen2-tp2", 2, 1, "biases of qkv", family="qwen2", **even)


if __name__ == "__main__":
    main(sys.argv[1])
