"""A small Hugging Face folder of every family that has names to be written.

    start_families.py OUT   writes OUT/FAMILY
"""
import pathlib
import sys

import torch

import hf

FAMILIES = {
    "llama": {},
    "mistral": {"head_dim": 16, "sliding_window": None},
    "mixtral": {"num_local_experts": 3, "head_dim": 16},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "qwen3_moe": dict(head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44),
    "deepseek_v3": hf.MLA,
    "gpt_oss": dict(num_local_experts=4, num_experts_per_tok=2, head_dim=32),
    "llama4_text": dict(intermediate_size_mlp=120, num_local_experts=4, interleave_moe_layer_step=2, head_dim=16),
    "gemma": dict(head_dim=32, tie_word_embeddings=True),
    "gemma2": dict(head_dim=32, tie_word_embeddings=True),
    "phi3": dict(pad_token_id=0),
}


def main(out):
    for family, changes in FAMILIES.items():
        hf.model(hf.config(family, **changes), torch.bfloat16).save_pretrained(pathlib.Path(out) / family)


if __name__ == "__main__":
    main(sys.argv[1])
