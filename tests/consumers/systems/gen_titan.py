"""torchtitan 0.3.0 checkpoints from its own CheckpointManager, models sharded by FSDP2 on gloo.

    gen_titan.py OUT

Every model starts as a tiny Hugging Face model, enters titan through its adapter's from_hf (expert tensors of gpt_oss by hand: the
adapter forgets them), and is saved. The reference is the adapter's to_hf of what was saved, compared with the Hugging Face model.
"""
import json
import logging
import os
import sys

import torch
import torch.nn as nn

import hf
import ranks
from case import Case, same
from titan_parts import GptOssExperts, TrainState, bias_experts, fill, shard, whole
from torchtitan.components.checkpointer.dcp import CheckpointManager
from torchtitan.components.optimizer.lr_scheduler import LRSchedulersContainer
from torchtitan.components.optimizer.optimizer import OptimizersContainer, default_adamw
from torchtitan.models import deepseek_v3, gpt_oss, llama3, qwen3
from torchtitan.models.common import ComplexRoPE, CosSinRoPE, Embedding, Linear, RMSNorm

logging.disable(logging.WARNING)
PACKAGES = ("torch", "torchtitan", "torchao", "transformers")
H, F, V, L = hf.SHAPE["hidden_size"], hf.SHAPE["intermediate_size"], hf.SHAPE["vocab_size"], hf.SHAPE["num_hidden_layers"]
HEADS, KV = hf.SHAPE["num_attention_heads"], hf.SHAPE["num_key_value_heads"]
EXPORT = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WEIGHT = {"weight": nn.init.normal_}


def frame(cls, layers, tied=False, **more):
    """The parts that every titan decoder has in common."""
    return cls(dim=H, vocab_size=V, tok_embeddings=Embedding.Config(num_embeddings=V, embedding_dim=H, param_init=WEIGHT),
               norm=RMSNorm.Config(normalized_shape=H, param_init=WEIGHT), layers=layers, **({"enable_weight_tying": True} if tied else {}),
               lm_head=Linear.Config(in_features=H, out_features=V, param_init=WEIGHT), **more)


def llama_config(tied=False, fuse=True):
    layers = llama3._build_llama3_layers(n_layers=L, dim=H, n_heads=HEADS, n_kv_heads=KV, hidden_dim=F, fuse_qkv=fuse, attn_backend="flex",
                                         rope=ComplexRoPE.Config(dim=H // HEADS, max_seq_len=128, theta=500000))
    return frame(llama3.Llama3Model.Config, layers, tied), llama3.Llama3StateDictAdapter


def tied_llama_config():
    return llama_config(tied=True)


def qwen3_config(tied=False, fuse=True):
    layers = qwen3._build_qwen3_layers(n_layers=L, dim=H, n_heads=HEADS, n_kv_heads=KV, head_dim=32, hidden_dim=F, fuse_qkv=fuse,
                                       attn_backend="flex", rope=CosSinRoPE.Config(dim=32, max_seq_len=128, theta=1e6))
    return frame(qwen3.Qwen3Model.Config, layers, tied), qwen3.Qwen3StateDictAdapter


def qwen3_moe_config():
    layers = qwen3._build_qwen3_moe_layers(n_layers=L, dim=H, n_heads=HEADS, n_kv_heads=KV, head_dim=32, moe_hidden_dim=44, num_experts=5,
                                           top_k=2, attn_backend="flex", moe_comm_backend="standard",
                                           rope=CosSinRoPE.Config(dim=32, max_seq_len=128, theta=1e6))
    return frame(qwen3.Qwen3Model.Config, layers), qwen3.Qwen3StateDictAdapter


def deepseek_config(q_lora=24, mtp=0):
    m = hf.MLA
    layers = deepseek_v3._build_dsv3_layers(
        n_layers=L, n_dense_layers=1, dim=H, n_heads=HEADS, q_lora_rank=q_lora, kv_lora_rank=m["kv_lora_rank"],
        qk_nope_head_dim=m["qk_nope_head_dim"], qk_rope_head_dim=m["qk_rope_head_dim"], v_head_dim=m["v_head_dim"], mscale=1.0,
        dense_hidden_dim=F, moe_hidden_dim=m["moe_intermediate_size"], num_experts=m["n_routed_experts"],
        num_shared_experts=m["n_shared_experts"], router_top_k=2, router_score_func="sigmoid", attn_backend="flex",
        moe_comm_backend="standard", non_blocking_capacity_factor=None,
        rope=ComplexRoPE.Config(dim=m["qk_rope_head_dim"], max_seq_len=128, theta=10000.0))
    extra = deepseek_v3._build_mtp_layers(layers[-1], dim=H, num_mtp_layers=mtp)
    return frame(deepseek_v3.DeepSeekV3Model.Config, layers, mtp_layers=extra), deepseek_v3.DeepSeekV3StateDictAdapter


def gpt_oss_config():
    layers = gpt_oss._build_gptoss_layers(dim=H, n_layers=L, hidden_dim=F, num_experts=4, top_k=2, load_balance_coeff=1e-3,
                                          moe_comm_backend="standard", rope=CosSinRoPE.Config(dim=64, max_seq_len=128, theta=150000.0))
    for layer in layers:
        attn = gpt_oss._make_gptoss_attn_config(dim=H, layer_id=0, n_heads=HEADS, n_kv_heads=KV, head_dim=32, attn_backend="flex",
                                                rope=CosSinRoPE.Config(dim=32, max_seq_len=128, theta=150000.0))
        layer.attention = attn
    return frame(gpt_oss.GptOssModel.Config, layers), gpt_oss.GptOssStateDictAdapter


EXPERTS = GptOssExperts("layers.{}.moe.routed_experts.inner_experts.", ("mlp1_weight_EGD", "mlp1_bias_EG", "mlp2_weight_EDF", "mlp2_bias_ED"))


def train_and_save(rank, folder, make, tensors, native, mesh_shape, dtype, save, seen):
    """One process of the run: shard, fill, save; rank 0 leaves the native state and the adapter's answer in `seen`."""
    config, adapter_class = make()
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)
    model = config.build()
    shard(model, mesh_shape)
    adapter = adapter_class(config, save.get("assets"))
    known = {k: v for k, v in tensors.items() if not (native and ".mlp.experts." in k)}
    fill(model, {**adapter.from_hf(known), **native})
    if save.get("bias"):
        bias_experts(model)
    optimizers = OptimizersContainer(default_adamw(lr=1e-3), model_parts=[model])
    schedulers = LRSchedulersContainer.Config().build(optimizers=optimizers, training_steps=10)
    options = CheckpointManager.Config(enable=True, folder="checkpoint", interval=10, **save.get("options", {}))
    manager = CheckpointManager(options, dataloader=None, model_parts=[model], optimizers=optimizers, lr_schedulers=schedulers,
                                states={"train_state": TrainState()}, sd_adapter=adapter, base_folder=str(folder))
    manager.save(10, last_step=save.get("last", False))
    manager.close()
    state = {k: whole(v) for k, v in manager.states["model"].state_dict().items()}
    if rank == 0:
        torch.save((state, adapter_class(config, None).to_hf(dict(state))), seen)


def one(out, name, make, family, *, world=2, mesh=None, dtype=torch.float32, save=None, special="", **changes):
    save = dict(save or {})
    cfg = hf.config(family, **changes)
    made = hf.model(cfg, dtype)
    tensors, config = hf.saved(made)
    case = Case(out, name, system="torchtitan", family=family, packages=PACKAGES)
    case.config(config)
    seen = case.folder / "seen.pt"
    native = EXPERTS.from_hf(tensors, L) if family == "gpt_oss" else {}
    ranks.run(world, train_and_save, case.source, make, tensors, native, mesh or (world,), dtype, save, seen)
    state, reference = torch.load(seen, weights_only=False)
    os.remove(seen)
    by = "its adapter's to_hf, equal to the Hugging Face model it came from"
    if family == "gpt_oss":
        reference.update(EXPERTS.to_hf(state, L))
        by = "its adapter's to_hf and, for the expert tensors that it drops, the Hugging Face model they came from"
    if cfg.tie_word_embeddings:
        reference.pop("lm_head.weight", None)
    own = {k: v for k, v in reference.items() if "correction_bias" in k or k.startswith(f"model.layers.{L}.")}
    same(reference, {**tensors, **own})
    if save.get("last"):
        reference = {k: v.to(EXPORT[save["options"].get("export_dtype", "float32")]) for k, v in reference.items()}
    case.done(reference, by=by, source="source/checkpoint/step-10", special=special)


def main(out):
    adam = "with Adam, step folder"
    one(out, "titan030-llama3-w2-adam", llama_config, "llama", special=adam)
    one(out, "titan030-llama3-w3-bf16", llama_config, "llama", world=3, dtype=torch.bfloat16, special="uneven shards, fused qkv split on save")
    one(out, "titan030-llama3-hsdp-2x2", lambda: llama_config(fuse=False), "llama", world=4, mesh=(2, 2), special="HSDP, separate wq/wk/wv")
    one(out, "titan030-llama3-tied-w2", lambda: llama_config(tied=True), "llama", tie_word_embeddings=True, special="tied, lm_head stored")
    one(out, "titan030-llama3-last-bf16", llama_config, "llama", save={"last": True, "options": {"export_dtype": "bfloat16"}}, special="last step: weights only, cast")
    one(out, "titan030-llama3-hf-export", llama_config, "llama", save={"last": True, "options": {"last_save_in_hf": True}}, special="last_save_in_hf, one file")
    one(out, "titan030-llama3-hf-export-sharded", llama_config, "llama", save={"last": True, "options": {"last_save_in_hf": True}, "assets": assets(out)},
        special="last_save_in_hf with the split of hf_assets: sharded/ and consolidated files")
    one(out, "titan030-qwen3-w2", qwen3_config, "qwen3", head_dim=32, special=adam)
    one(out, "titan030-qwen3-tied-w4-bf16", lambda: qwen3_config(tied=True), "qwen3", world=4, dtype=torch.bfloat16, head_dim=32, tie_word_embeddings=True, special="tied")
    moe = dict(head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44)
    one(out, "titan030-qwen3moe-w2", qwen3_moe_config, "qwen3_moe", special="experts unstacked, zero expert_bias dropped", **moe)
    one(out, "titan030-qwen3moe-bias-w3-bf16", qwen3_moe_config, "qwen3_moe", world=3, dtype=torch.bfloat16, save={"bias": True},
        special="non-zero expert_bias: dropped by name with a warning; experts do not divide", **moe)
    one(out, "titan030-deepseekv3-w2", deepseek_config, "deepseek_v3", special="q_lora, expert_bias kept", save={"bias": True}, **hf.MLA)
    one(out, "titan030-deepseekv3-noqlora-w2-bf16", lambda: deepseek_config(q_lora=0), "deepseek_v3", dtype=torch.bfloat16, save={"bias": True},
        special="no q_lora, expert_bias in f32", **{**hf.MLA, "q_lora_rank": None})
    one(out, "titan030-deepseekv3-mtp-w2", lambda: deepseek_config(mtp=1), "deepseek_v3", save={"bias": True},
        special="a multi-token prediction module, which becomes the layer after the last", num_nextn_predict_layers=1, **hf.MLA)
    one(out, "titan030-gptoss-w2", gpt_oss_config, "gpt_oss", special="experts transposed; its adapter drops them", num_local_experts=4, num_experts_per_tok=2, head_dim=32)
    one(out, "titan030-gptoss-bias-w2-bf16", gpt_oss_config, "gpt_oss", dtype=torch.bfloat16, save={"bias": True}, special="non-zero expert_bias",
        num_local_experts=4, num_experts_per_tok=2, head_dim=32)


def assets(out):
    """An hf_assets folder whose index asks for three files."""
    folder = f"{out}/.assets"
    os.makedirs(folder, exist_ok=True)
    tensors, _ = hf.saved(hf.model(hf.config("llama")))
    json.dump({"metadata": {}, "weight_map": {k: f"model-0000{1 + n % 3}-of-00003.safetensors" for n, k in enumerate(tensors)}},
              open(f"{folder}/model.safetensors.index.json", "w"))
    return folder


if __name__ == "__main__":
    main(sys.argv[1])
