"""Tiny Hugging Face models with random weights (norms and biases too, so that a swapped pair shows)."""
import pathlib
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

SHAPE = dict(hidden_size=96, num_attention_heads=6, num_key_value_heads=3, intermediate_size=136, num_hidden_layers=3,
             vocab_size=263, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False)
MLA = dict(q_lora_rank=24, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16, num_key_value_heads=6,
           n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=40, first_k_dense_replace=1,
           n_group=2, topk_group=1, num_hidden_layers=3)


def config(model_type, **changes):
    return AutoConfig.for_model(model_type, **{**SHAPE, **changes})


def model(cfg, dtype=torch.float32, seed=0, cls=AutoModelForCausalLM):
    torch.manual_seed(seed)
    made = cls.from_config(cfg, dtype=dtype) if hasattr(cls, "from_config") else cls(cfg).to(dtype)
    randomise(made)
    return made.eval()


def randomise(module):
    with torch.no_grad():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if tensor.is_floating_point():
                value = torch.randn(tensor.shape) * 0.05 + (1.0 if is_norm(name) else 0.0)
                tensor.copy_(value)


def is_norm(name):
    return "norm" in name.rsplit(".", 2)[-2] and name.endswith("weight") if name.count(".") > 1 else False


def saved(made):
    """What save_pretrained writes: {name: tensor}, and config.json as a dictionary."""
    import json
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        tensors = {}
        for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
            tensors.update({k: v.clone() for k, v in load_file(file).items()})
        return tensors, json.loads((pathlib.Path(folder) / "config.json").read_text())


def folder(path):
    """The tensors of a Hugging Face folder."""
    tensors = {}
    for file in sorted(pathlib.Path(path).glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors
