"""Adapters of an older PEFT over tiny bases in f32, each with what its own merge_and_unload makes of it. (In bf16 and f16 PEFT 0.8 to
0.11 rounded each step to that type, which newer versions and ckptfs do not.)"""
import pathlib
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

out = pathlib.Path(sys.argv[1])

SIZES = dict(vocab_size=160, hidden_size=96, intermediate_size=200, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
LLAMA, QWEN2 = LlamaConfig(**SIZES), Qwen2Config(**SIZES, tie_word_embeddings=False)
GPT2 = GPT2Config(vocab_size=160, n_positions=64, n_embd=64, n_layer=2, n_head=4)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "linear": (LLAMA, dict(r=6, lora_alpha=10, target_modules=ALL)),
    "by-pattern": (LLAMA, dict(r=4, lora_alpha=7, target_modules=r".*\.(q|v)_proj")),
    "layers": (LLAMA, dict(r=6, lora_alpha=10, target_modules=["q_proj"], layers_to_transform=[1])),
    "patterns": (LLAMA, dict(r=4, lora_alpha=8, target_modules=ALL, rank_pattern={"layers.1.self_attn.q_proj": 7, "down_proj": 3}, alpha_pattern={r".*\.0\..*v_proj": 5, "up_proj": 2})),
    "rslora": (LLAMA, dict(r=12, lora_alpha=5, use_rslora=True, target_modules=ALL)),
    "bias-all": (QWEN2, dict(r=4, lora_alpha=7, bias="all", target_modules=["q_proj", "v_proj"])),
    "bias-lora-only": (QWEN2, dict(r=4, lora_alpha=7, bias="lora_only", target_modules=["q_proj"])),
    "saved": (LLAMA, dict(r=4, lora_alpha=7, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"])),
    "embedding": (LLAMA, dict(r=4, lora_alpha=7, target_modules=["embed_tokens", "q_proj"])),
    "conv1d": (GPT2, dict(r=4, lora_alpha=7, target_modules=["c_attn", "c_proj", "c_fc"])),
}


def made(folder, config, lora, **saving):
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "base"), LoraConfig(task_type="CAUSAL_LM", **lora))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                is_vector = parameter.ndim == 1
                parameter.copy_(torch.randn_like(parameter) * (1 if is_vector else 0.05) + is_vector)
    model.save_pretrained(folder / "adapter", **saving)
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload().save_pretrained(folder / "merged")


for seed, (name, (config, lora)) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    made(out / name, config, lora)
made(out / "bin", LLAMA, CASES["linear"][1], safe_serialization=False)
