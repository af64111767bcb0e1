"""torchtitan 0.3.0 training in float8: its own converter swaps the linear layers, whose weights stay in high precision.

    gen_titan_float8.py OUT        (in an environment with torchao)

Emulated, as torchao does it without a GPU that has float8.
"""
import sys

import torch

import gen_titan as titan
from torchtitan.components.quantization import Float8LinearConverter
from torchtitan.components.quantization.utils import has_quantization


def float8(make):
    config, adapter = make()
    config = Float8LinearConverter(Float8LinearConverter.Config(recipe_name="rowwise", emulate=True)).convert(config)
    assert has_quantization(config)
    return config, adapter


def main(out):
    special = "float8 training: the linear layers are torchao's, their weights are not in float8"
    titan.one(out, "titan030-float8-llama3-w2", lambda: float8(titan.llama_config), "llama", special=special)
    titan.one(out, "titan030-float8-qwen3-w3-bf16", lambda: float8(titan.qwen3_config), "qwen3", world=3, dtype=torch.bfloat16, head_dim=32, special=special)


if __name__ == "__main__":
    main(sys.argv[1])
