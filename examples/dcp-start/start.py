"""start.py FOLDER: one step of training under FSDP2 that starts from a checkpoint of torch.distributed.checkpoint."""
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoConfig, AutoModelForCausalLM

folder = sys.argv[1]
device = "cuda" if torch.cuda.is_available() else "cpu"
dist.init_process_group("nccl" if device == "cuda" else "gloo")
mesh = init_device_mesh(device, (dist.get_world_size(),))
if device == "cuda":
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())

model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).to(device)
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
state = model.state_dict()
dcp.load(state, checkpoint_id=folder)
model.load_state_dict(state)

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
tokens = torch.arange(32, device=device)[None]
loss = model(tokens, labels=tokens).loss
loss.backward()
optimizer.step()
if dist.get_rank() == 0:
    print(f"loss {loss.item():.4f}")
dist.destroy_process_group()
