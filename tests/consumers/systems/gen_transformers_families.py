"""Families that no table lists, saved as transformers holds them in memory: what save_pretrained converts is converted too.

    gen_transformers_families.py OUT
"""
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

import gen_transformers
import hf
from case import Case

MOE = dict(num_experts=4, num_local_experts=4, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=40, moe_topk=2,
           shared_expert_intermediate_size=48, decoder_sparse_step=1, n_group=1, topk_group=1, n_shared_experts=1, first_k_dense_replace=1)
GPT = dict(n_embd=96, n_head=6, n_layer=3)
LINEAR = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16)
TEXT = {
    **dict.fromkeys(["arcee", "bitnet", "cohere", "cohere2", "ernie4_5", "exaone4", "falcon", "granite", "helium", "ministral3",
                     "nemotron", "olmo", "olmo2", "olmo3", "phi", "smollm3", "stablelm", "starcoder2"], {}),
    **dict.fromkeys(["gemma3_text", "glm", "glm4", "seed_oss"], dict(head_dim=16)),
    **dict.fromkeys(["cohere2_moe", "dots1", "ernie4_5_moe", "flex_olmo", "granitemoe", "granitemoeshared", "jamba",
                     "mellum", "minimax", "olmoe", "phimoe", "qwen2_moe"], MOE),
    **dict.fromkeys(["glm4_moe", "hunyuan_v1_moe", "minimax_m2"], dict(MOE, head_dim=16)),
    "deepseek_v2": dict(MOE, **hf.MLA),
    "exaone_moe": dict(MOE, num_shared_experts=1),
    "gpt2": GPT,
    "gpt_neox": dict(rotary_pct=0.25),
    "gptj": dict(GPT, rotary_dim=8),
    "lfm2_moe": dict(MOE, layer_types=["full_attention", "conv", "full_attention"], num_dense_layers=1),
    "opt": dict(ffn_dim=136, word_embed_proj_dim=96),
    "qwen3_next": dict(MOE, head_dim=16, **LINEAR),
}

PART = dict(hf.SHAPE, num_hidden_layers=2, head_dim=16)
MROPE = dict(rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4})
SEEN = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, image_size=28, patch_size=14)
TOWER = dict(depth=1, hidden_size=64, intermediate_size=96, num_heads=4, out_hidden_size=96)
LLAMA4 = dict(SEEN, intermediate_size=256, vision_output_dim=64, projector_input_dim=64, projector_output_dim=64)
MULTIMODAL = {
    "gemma3": ("gemma3_text", {}, dict(SEEN, model_type="siglip_vision_model")),
    "idefics3": ("llama", {}, SEEN),
    "internvl": ("qwen2", {}, dict(SEEN, image_size=[28, 28], patch_size=[14, 14])),
    "llama4": ("llama4_text", dict(num_local_experts=4, intermediate_size_mlp=104, interleave_moe_layer_step=2), LLAMA4),
    "llava": ("llama", {}, dict(SEEN, model_type="clip_vision_model")),
    "mistral3": ("mistral", {}, dict(SEEN, model_type="pixtral", head_dim=16)),
    "paligemma": ("gemma", {}, dict(SEEN, model_type="siglip_vision_model")),
    "qwen2_vl": ("qwen2_vl_text", MROPE, dict(depth=1, embed_dim=64, hidden_size=96, num_heads=4)),
    "qwen2_5_vl": ("qwen2_5_vl_text", MROPE, TOWER),
    "qwen3_vl": ("qwen3_vl_text", {}, dict(TOWER, deepstack_visual_indexes=[0])),
}


def one(out, family, writer, config, cls):
    made = hf.model(config, cls=cls)
    reference, saved = hf.saved(made)
    case = Case(out, f"tf-{family}-{writer}-as-in-memory", system="transformers", family="others", packages=gen_transformers.PACKAGES)
    case.config(saved)
    gen_transformers.WRITERS[writer](made.state_dict(), case.source)
    case.done(reference, by="save_pretrained of the same model", special=family)


def main(out):
    torch.set_num_threads(1)
    for number, (family, changes) in enumerate(TEXT.items()):
        one(out, family, ("dcp", "bin")[number % 2], hf.config(family, **changes), AutoModelForCausalLM)
    for number, (family, (text, changes, vision)) in enumerate(MULTIMODAL.items()):
        text = dict(PART, **changes, model_type=text)
        config = AutoConfig.for_model(family, text_config=text, vision_config=dict(vision))
        one(out, family, ("bin", "dcp")[number % 2], config, AutoModelForImageTextToText)


if __name__ == "__main__":
    main(sys.argv[1])
