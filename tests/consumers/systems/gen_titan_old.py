"""torchtitan 0.2.2 checkpoints from its own CheckpointManager: the older spellings, and llama4, which 0.3.0 no longer has.

    gen_titan_old.py OUT

References as in gen_titan.py. Its llama4 adapter drops the dense feed-forward layers and the router bias, and names a multimodal model;
its gpt_oss adapter gives MXFP4 names to bf16 tensors: for both the reference is the Hugging Face model that was loaded.
"""
import logging
import os
import sys
from types import SimpleNamespace

import torch

import hf
import ranks
from case import Case, same
from titan_parts import GptOssExperts, TrainState, bias_experts, fill, shard, turn, whole
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.lr_scheduler import LRSchedulersContainer
from torchtitan.components.optimizer import OptimizersContainer
from torchtitan.components.quantization.float8 import Float8LinearConverter
from torchtitan.config.job_config import Checkpoint, JobConfig
from torchtitan.models import deepseek_v3, gpt_oss, llama3, llama4, qwen3
from torchtitan.models.moe import MoEArgs

logging.disable(logging.WARNING)
PACKAGES = ("torch", "torchtitan", "torchao", "transformers")
S = hf.SHAPE
L, HEADS, KV = S["num_hidden_layers"], S["num_attention_heads"], S["num_key_value_heads"]
COMMON = dict(dim=S["hidden_size"], n_layers=L, n_heads=HEADS, vocab_size=S["vocab_size"], max_seq_len=128)
EXPERTS = GptOssExperts("layers.{}.moe.experts.", ("mlp1_weight", "mlp1_bias", "mlp2_weight", "mlp2_bias"))


def llama3_model():
    args = llama3.TransformerModelArgs(**COMMON, n_kv_heads=KV, multiple_of=8, ffn_dim_multiplier=0.53)
    return llama3.Transformer(args), llama3.Llama3StateDictAdapter(args, None)


def float8_model():
    """llama3 as it trains in float8: FSDP gathers the weights in float8, so they are of a class of torchao's."""
    model, adapter = llama3_model()
    job = JobConfig()
    job.quantize.linear.float8.emulate = True
    job.quantize.linear.float8.enable_fsdp_float8_all_gather = True
    Float8LinearConverter(job, SimpleNamespace(dp_shard_enabled=True)).convert(model)
    return model, adapter


def llama4_model():
    args = llama4.TransformerModelArgs(**COMMON, n_kv_heads=KV, multiple_of=8, ffn_dim_multiplier=0.5, interleave_moe_layer_step=2,
                                       moe_args=MoEArgs(num_experts=4, num_shared_experts=1, top_k=1))
    return llama4.Transformer(args), llama4.Llama4StateDictAdapter(args, None)


def qwen3_model(tied=False, **moe):
    args = qwen3.Qwen3ModelArgs(**COMMON, n_kv_heads=KV, head_dim=32, hidden_dim=S["intermediate_size"], enable_weight_tying=tied, **moe)
    return qwen3.Qwen3Model(args), qwen3.Qwen3StateDictAdapter(args, None)


def qwen3_moe_model():
    moe = MoEArgs(num_experts=5, num_shared_experts=0, top_k=2, score_func="softmax", route_norm=True)
    return qwen3_model(moe_enabled=True, moe_inter_dim=44, moe_args=moe)


def deepseek_model():
    m = hf.MLA
    args = deepseek_v3.DeepSeekV3ModelArgs(
        **COMMON, inter_dim=S["intermediate_size"], moe_inter_dim=m["moe_intermediate_size"], n_dense_layers=1,
        moe_args=MoEArgs(num_experts=4, num_shared_experts=1, top_k=2), q_lora_rank=m["q_lora_rank"], kv_lora_rank=m["kv_lora_rank"],
        qk_nope_head_dim=m["qk_nope_head_dim"], qk_rope_head_dim=m["qk_rope_head_dim"], v_head_dim=m["v_head_dim"])
    args.moe_impl = "standard"  # set by update_from_config in a real run
    return deepseek_v3.DeepSeekV3Model(args), deepseek_v3.DeepSeekV3StateDictAdapter(args, None)


def gpt_oss_model():
    args = gpt_oss.GptOssModelArgs(**COMMON, n_kv_heads=KV, head_dim=32, moe_inter_dim=S["intermediate_size"],
                                   moe_args=MoEArgs(num_experts=4, num_shared_experts=0, top_k=2, score_func="softmax", gate_bias=True))
    return gpt_oss.GptOssModel(args), gpt_oss.GptOssStateDictAdapter(args, None)


def llama4_native(tensors):
    """Names of transformers' text model to titan's, without the adapter."""
    plain = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}
    layer = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
             "self_attn.o_proj": "attention.wo", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
             "feed_forward.router": "moe.router.gate", "feed_forward.shared_expert.gate_proj": "moe.shared_experts.w1",
             "feed_forward.shared_expert.up_proj": "moe.shared_experts.w3", "feed_forward.shared_expert.down_proj": "moe.shared_experts.w2",
             "feed_forward.gate_proj": "feed_forward.w1", "feed_forward.up_proj": "feed_forward.w3", "feed_forward.down_proj": "feed_forward.w2"}
    out = {}
    for name, value in tensors.items():
        if not name.startswith("model.layers."):
            out[plain[name.removesuffix(".weight")] + ".weight"] = value
            continue
        i, rest = name.removeprefix("model.layers.").split(".", 1)
        if rest == "feed_forward.experts.gate_up_proj":
            w1, w3 = value.chunk(2, dim=-1)
            out[f"layers.{i}.moe.experts.w1"], out[f"layers.{i}.moe.experts.w3"] = turn(w1), turn(w3)
        elif rest == "feed_forward.experts.down_proj":
            out[f"layers.{i}.moe.experts.w2"] = turn(value)
        else:
            out[f"layers.{i}.{layer[rest.removesuffix('.weight')]}.weight"] = value
    return out


def train_and_save(rank, folder, make, native, mesh_shape, dtype, save, seen):
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)
    model, adapter = make()
    with torch.no_grad():
        model.init_weights(buffer_device=torch.device("cpu"))
    shard(model, mesh_shape)
    full = native if native else adapter.from_hf(torch.load(f"{seen}.in"))
    if native and save.get("both"):
        known = {k: v for k, v in torch.load(f"{seen}.in").items() if ".experts." not in k}
        full = {**adapter.from_hf(known), **native}
    fill(model, full)
    if save.get("bias"):
        bias_experts(model)
    optimizers = OptimizersContainer([model], torch.optim.AdamW, {"lr": 1e-3})
    schedulers = LRSchedulersContainer(optimizers, lambda step: 1.0)
    options = Checkpoint(enable=True, folder="checkpoint", interval=10, async_mode="disabled", **save.get("options", {}))
    manager = CheckpointManager(dataloader=None, model_parts=[model], optimizers=optimizers, lr_schedulers=schedulers,
                                states={"train_state": TrainState()}, checkpoint_config=options, sd_adapter=adapter, base_folder=str(folder))
    manager.save(10, last_step=save.get("last", False))
    manager.close()
    state = {k: whole(v) for k, v in manager.states["model"].state_dict().items()}
    if rank == 0:
        torch.save((state, adapter.to_hf(dict(state))), seen)


def one(out, name, make, family, *, world=2, mesh=None, dtype=torch.float32, save=None, special="", config=None, **changes):
    save = dict(save or {})
    cfg = hf.config(family, **changes)
    tensors, config_json = hf.saved(hf.model(cfg, dtype))
    case = Case(out, name, system="torchtitan", family=family.removesuffix("_text"), packages=PACKAGES)
    case.config(config_json)
    seen = case.folder / "seen.pt"
    torch.save(tensors, f"{seen}.in")
    native = {}
    if family == "gpt_oss":
        native, save["both"] = EXPERTS.from_hf(tensors, L), True
    if family == "llama4_text":
        native = llama4_native(tensors)
    ranks.run(world, train_and_save, case.source, make, native, mesh or (world,), dtype, save, seen)
    state, reference = torch.load(seen, weights_only=False)
    os.remove(seen), os.remove(f"{seen}.in")
    by = "its adapter's to_hf, equal to the Hugging Face model it came from"
    if family == "gpt_oss":
        reference = {k: v for k, v in reference.items() if ".experts." not in k} | EXPERTS.to_hf(state, L)
        tensors = {k: v.to(reference[k].dtype) for k, v in tensors.items()}  # its attention is always bf16
        by = "its adapter's to_hf; the experts, which it misnames, from the Hugging Face model"
    if family == "llama4_text":
        theirs = {k.removeprefix("language_model."): v for k, v in reference.items()}
        same(theirs, {k: v for k, v in tensors.items() if k in theirs})
        reference = tensors
        by = "the Hugging Face model it came from; its adapter's to_hf agrees, but drops the dense layers and names Llama4ForConditionalGeneration"
    if cfg.tie_word_embeddings:
        reference.pop("lm_head.weight", None)
    biases = {k: v for k, v in reference.items() if "correction_bias" in k}
    same(reference, {**tensors, **biases})
    case.done(reference, by=by, source="source/checkpoint/step-10", special=special)


def main(out):
    moe = dict(head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44)
    scout = dict(head_dim=16, num_local_experts=4, intermediate_size=64, intermediate_size_mlp=128, interleave_moe_layer_step=2, num_experts_per_tok=1)
    one(out, "titan022-llama3-w2-adam", llama3_model, "llama", special="wq, output spelling, with Adam")
    one(out, "titan022-llama3-w3-last-bf16", llama3_model, "llama", world=3, dtype=torch.bfloat16, save={"last": True, "options": {"export_dtype": "bfloat16"}}, special="last step, weights only")
    one(out, "titan022-float8-llama3-w2", float8_model, "llama", special="float8 training with FSDP's float8 all-gather")
    one(out, "titan022-float8-llama3-last-bf16", float8_model, "llama", dtype=torch.bfloat16, save={"last": True, "options": {"export_dtype": "bfloat16"}}, special="float8 all-gather, weights only")
    one(out, "titan022-llama4-w2", llama4_model, "llama4_text", special="dense and MoE layers alternate", **scout)
    one(out, "titan022-llama4-bias-w3-bf16", llama4_model, "llama4_text", world=3, dtype=torch.bfloat16, save={"bias": True}, special="non-zero expert_bias", **scout)
    one(out, "titan022-qwen3-w2", qwen3_model, "qwen3", head_dim=32, special="with Adam")
    one(out, "titan022-qwen3-tied-w2-bf16", lambda: qwen3_model(tied=True), "qwen3", dtype=torch.bfloat16, head_dim=32, tie_word_embeddings=True, special="tied")
    one(out, "titan022-qwen3moe-bias-w2", qwen3_moe_model, "qwen3_moe", special="moe.experts.w1 spelling", save={"bias": True}, **moe)
    one(out, "titan022-deepseekv3-w2-bf16", deepseek_model, "deepseek_v3", dtype=torch.bfloat16, save={"bias": True}, special="expert_bias kept", **hf.MLA)
    one(out, "titan022-gptoss-bias-w2", gpt_oss_model, "gpt_oss", save={"bias": True}, special="experts transposed; attention in bf16 among f32", num_local_experts=4, num_experts_per_tok=2, head_dim=32)


if __name__ == "__main__":
    main(sys.argv[1])
