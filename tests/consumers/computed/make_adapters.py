"""Adapters of many configurations over tiny bases, each with what PEFT's merge_and_unload makes of it."""
import pathlib
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GptOssConfig, LlamaConfig, MixtralConfig, Qwen2Config, Qwen3MoeConfig

out = pathlib.Path(sys.argv[1])

LLAMA = LlamaConfig(vocab_size=160, hidden_size=96, intermediate_size=200, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
TIED = LlamaConfig(**{**LLAMA.to_dict(), "tie_word_embeddings": True})
BIASED = LlamaConfig(**{**LLAMA.to_dict(), "attention_bias": True, "mlp_bias": True})
QWEN2 = Qwen2Config(vocab_size=160, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
GPT2 = GPT2Config(vocab_size=160, n_positions=64, n_embd=64, n_layer=2, n_head=4)
MOE = Qwen3MoeConfig(vocab_size=128, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_experts=4, num_local_experts=4, num_experts_per_tok=2, head_dim=8)
SQUARE = Qwen3MoeConfig(**{**MOE.to_dict(), "moe_intermediate_size": 32})
OSS = GptOssConfig(vocab_size=96, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2)
MIXTRAL = MixtralConfig(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BF, F32, F16 = torch.bfloat16, torch.float32, torch.float16
CASES = {
    "linear-bf16": (LLAMA, BF, dict(r=6, lora_alpha=10, target_modules=ALL)),
    "linear-f16": (LLAMA, F16, dict(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])),
    "linear-f32-r1": (LLAMA, F32, dict(r=1, lora_alpha=3, target_modules=ALL)),
    "rslora": (LLAMA, BF, dict(r=12, lora_alpha=5, use_rslora=True, target_modules=ALL)),
    "r96": (LLAMA, F32, dict(r=96, lora_alpha=32, target_modules=ALL)),
    "patterns": (LLAMA, BF, dict(r=4, lora_alpha=8, target_modules=ALL, rank_pattern={"layers.1.self_attn.q_proj": 7, "down_proj": 3}, alpha_pattern={r".*\.0\..*v_proj": 5, "up_proj": 2})),
    "dora": (LLAMA, BF, dict(r=5, lora_alpha=9, use_dora=True, target_modules=ALL)),
    "lora-bias": (BIASED, BF, dict(r=4, lora_alpha=7, lora_bias=True, target_modules=["q_proj", "down_proj"])),
    "bias-all": (QWEN2, BF, dict(r=4, lora_alpha=7, bias="all", target_modules=["q_proj", "v_proj"])),
    "bias-lora-only": (QWEN2, F32, dict(r=4, lora_alpha=7, bias="lora_only", target_modules=["q_proj"])),
    "save-head": (LLAMA, BF, dict(r=4, lora_alpha=7, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "save-head-tied": (TIED, BF, dict(r=4, lora_alpha=7, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "save-embedding-tied": (TIED, BF, dict(r=4, lora_alpha=7, target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "save-norms": (LLAMA, BF, dict(r=4, lora_alpha=7, target_modules=["q_proj"], modules_to_save=["norm", "input_layernorm"])),
    "embedding-tied": (TIED, BF, dict(r=4, lora_alpha=7, target_modules=["embed_tokens", "q_proj"])),
    "head-tied": (TIED, BF, dict(r=4, lora_alpha=7, target_modules=["lm_head", "q_proj"])),
    "both-tied": (TIED, BF, dict(r=4, lora_alpha=7, target_modules=["lm_head", "embed_tokens"])),
    "tokens": (LLAMA, BF, dict(r=4, lora_alpha=7, target_modules=["q_proj"], trainable_token_indices=[7, 3, 159])),
    "tokens-by-module": (LLAMA, BF, dict(r=4, lora_alpha=7, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [0, 5]})),
    "tokens-tied": (TIED, BF, dict(r=4, lora_alpha=7, target_modules=["q_proj"], trainable_token_indices=[7, 3])),
    "conv1d": (GPT2, BF, dict(r=4, lora_alpha=7, target_modules=["c_attn", "c_proj", "c_fc"])),
    "conv1d-flag": (GPT2, F32, dict(r=4, lora_alpha=7, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    "gpt2-wte": (GPT2, F32, dict(r=4, lora_alpha=7, target_modules=["wte", "c_attn"])),
    "experts": (MOE, BF, dict(r=3, lora_alpha=7, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])),
    "experts-square": (SQUARE, BF, dict(r=2, lora_alpha=5, target_modules=[], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])),
    "experts-down-only": (MOE, F32, dict(r=3, lora_alpha=7, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])),
    "router-parameter": (MOE, BF, dict(r=2, lora_alpha=7, target_modules=["q_proj"], target_parameters=["mlp.gate.weight"])),
    "gpt-oss": (OSS, BF, dict(r=2, lora_alpha=7, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])),
    "mixtral": (MIXTRAL, BF, dict(r=2, lora_alpha=7, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])),
    "several": (LLAMA, BF, dict(r=4, lora_alpha=7, target_modules=["q_proj", "down_proj"]), dict(r=9, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "embed_tokens"])),
    "patterns-regex": (LLAMA, F32, dict(r=4, lora_alpha=8, target_modules=ALL, rank_pattern={r"layers\.[01]\.mlp\.(up|gate)_proj": 6, "proj": 9}, alpha_pattern={"q_proj": 5, r"(q|k)_proj": 11, "proj": 2})),
    "layers-to-transform": (LLAMA, F32, dict(r=4, lora_alpha=8, target_modules=["q_proj"], layers_to_transform=[1])),
    "experts-patterns": (MOE, BF, dict(r=3, lora_alpha=7, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], rank_pattern={"mlp.experts.down_proj": 5}, alpha_pattern={"experts.gate_up_proj": 4})),
    "gaussian": (LLAMA, BF, dict(r=4, lora_alpha=8, init_lora_weights="gaussian", target_modules="all-linear")),
}


# PEFT merges these; in its own words they are DoRA on an embedding, and on a Conv1D.
REFUSED = {
    "refused-dora-embedding": (LLAMA, BF, dict(r=4, lora_alpha=7, use_dora=True, target_modules=["embed_tokens", "q_proj"])),
    "refused-dora-conv1d": (GPT2, BF, dict(r=4, lora_alpha=7, use_dora=True, target_modules=["c_attn"], fan_in_fan_out=True)),
}
NAMES = ("adapter", "second")


def load(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype)


def adapted(folder, name, dtype, lora):
    """Saves an adapter whose parameters are random."""
    model = get_peft_model(load(folder, dtype), LoraConfig(task_type="CAUSAL_LM", **lora))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                is_vector = parameter.ndim == 1
                parameter.copy_(torch.randn_like(parameter, dtype=F32) * (1 if is_vector else 0.05) + is_vector)
    model.save_pretrained(folder / name)


def made(folder, config, dtype, *loras):
    """A base, adapters, and the model into which they are merged, one after the other."""
    AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder / "base")
    for name, lora in zip(NAMES, loras):
        adapted(folder, name, dtype, lora)
    model = PeftModel.from_pretrained(load(folder, dtype), folder / NAMES[0], adapter_name=NAMES[0])
    for name, _ in list(zip(NAMES, loras))[1:]:
        model.load_adapter(folder / name, name)
    model.merge_and_unload(adapter_names=list(NAMES[:len(loras)])).save_pretrained(folder / "merged")


for seed, (name, (config, dtype, *loras)) in enumerate([*CASES.items(), *REFUSED.items()]):
    torch.manual_seed(seed)
    made(out / name, config, dtype, *loras)
