"""A small Hugging Face folder of every family that has names to be written.

    start_families.py OUT   writes OUT/FAMILY
"""
import pathlib
import sys

import torch
from transformers import AutoModelForImageTextToText

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

VISION = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=4, num_position_embeddings=16, out_hidden_size=96, patch_size=4, spatial_merge_size=2, temporal_patch_size=2)
LINEAR = dict(head_dim=32, linear_conv_kernel_dim=4, linear_key_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4, linear_value_head_dim=8,
              layer_types=["linear_attention", "linear_attention", "full_attention"])
SPARSE = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=44, shared_expert_intermediate_size=52)
TOWER = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14, vision_output_dim=16,
             projector_input_dim=16, projector_output_dim=16, pixel_shuffle_ratio=0.5)

# Models with a vision tower: the changes of their text part, and the tower.
MULTIMODAL = {
    "qwen3_5": (LINEAR, VISION),
    "qwen3_5_moe": ({**LINEAR, **SPARSE}, VISION),
    "llama4": (FAMILIES["llama4_text"], TOWER),
}


def main(out):
    for family, changes in FAMILIES.items():
        hf.model(hf.config(family, **changes), torch.bfloat16).save_pretrained(pathlib.Path(out) / family)
    for family, (text, vision) in MULTIMODAL.items():
        config = hf.AutoConfig.for_model(family, text_config={**hf.SHAPE, **text}, vision_config=vision, tie_word_embeddings=False)
        hf.model(config, torch.bfloat16, cls=AutoModelForImageTextToText).save_pretrained(pathlib.Path(out) / family)


if __name__ == "__main__":
    main(sys.argv[1])
