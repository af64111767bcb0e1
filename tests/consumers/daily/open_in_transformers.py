"""open_in_transformers.py SOURCE CONFIG: the recipe of docs/python.md, against from_pretrained through nothing but the same weights."""
import sys

import torch
import transformers

import ckptfs

checkpoint = ckptfs.open(sys.argv[1], config_from=sys.argv[2])
config = transformers.AutoConfig.from_pretrained(sys.argv[2])
model = transformers.LlamaForCausalLM.from_pretrained(None, config=config, state_dict=checkpoint.state_dict())
for name, tensor in checkpoint.items():
    assert torch.equal(model.state_dict()[name], tensor.torch().to(model.dtype)), name
print(sum(parameter.numel() for parameter in model.parameters()), model.dtype)
