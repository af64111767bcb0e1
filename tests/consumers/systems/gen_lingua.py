"""Lingua checkpoints: DCP with params.json, and its consolidated file.

    gen_lingua.py OUT

Lingua is not on the package registry. What its CheckpointManager does is a dcp.save of {"model", "optim"} as get_state_dict returns them,
grouped and sharded as in its own plan (every block, embedding and output apart), then params.json and a train_state per rank; its
consolidation is torch's dcp_to_torch_save. Those calls are made here, with a module of the same names and shapes. The reference is the
Hugging Face model it came from; the consolidated file is compared with it first.
"""
import json
import sys

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import hf
import ranks
from case import Case, same
from gen_meta import meta_state


class TiedLinear(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.tied_module = tied


class Block(nn.Module):
    def __init__(self, dim, heads, groups, head_dim, hidden):
        super().__init__()
        linear = lambda a, b: nn.Linear(a, b, bias=False)  # noqa: E731
        self.attention = nn.ModuleDict({"wq": linear(dim, heads * head_dim), "wk": linear(dim, groups * head_dim), "wv": linear(dim, groups * head_dim), "wo": linear(heads * head_dim, dim)})
        self.feed_forward = nn.ModuleDict({"w1": linear(dim, hidden), "w3": linear(dim, hidden), "w2": linear(hidden, dim)})
        self.attention_norm, self.ffn_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)


class Transformer(nn.Module):
    def __init__(self, c, head_dim):
        super().__init__()
        dim = c["hidden_size"]
        self.layers = nn.ModuleList(Block(dim, c["num_attention_heads"], c["num_key_value_heads"], head_dim, c["intermediate_size"]) for _ in range(c["num_hidden_layers"]))
        self.norm, self.tok_embeddings = nn.RMSNorm(dim), nn.Embedding(c["vocab_size"], dim)
        self.output = TiedLinear(self.tok_embeddings) if c["tie_word_embeddings"] else nn.Linear(dim, c["vocab_size"], bias=False)


def params(c, **changes):
    model = {"dim": c["hidden_size"], "n_layers": c["num_hidden_layers"], "head_dim": None, "n_heads": c["num_attention_heads"], "n_kv_heads": c["num_key_value_heads"],
             "ffn_dim_multiplier": 0.53, "multiple_of": 8, "norm_eps": 1e-05, "rope_theta": 10000.0, "init_base_std": None, "init_std_factor": "disabled", "max_seqlen": 1024, "seed": 42,
             "vocab_size": -1, "weight_tying": c["tie_word_embeddings"], "sliding_window": None, **changes}
    return {"name": "tiny", "dump_dir": "", "seed": 42, "steps": 1000, "optim": {"lr": 3e-4}, "model": model, "distributed": {"fsdp_type": "full_shard"},
            "data": {"tokenizer": {"name": "bytes", "path": None}}}


def train_and_save(rank, folder, c, head_dim, state_file, dtype, root, changes):
    model = Transformer(c, head_dim).to(dtype)
    model.load_state_dict(torch.load(state_file), strict=not c["tie_word_embeddings"])
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),), mesh_dim_names=("dp_shard",))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optim": moments} if root else weights, checkpoint_id=folder)
    (folder / f"train_state_{rank:05d}.json").write_text(json.dumps({"step": 100, "acc_step": 0}))
    if rank == 0:
        (folder / "params.json").write_text(json.dumps(params(c, **changes)))


def one(out, name, dtype, world, *, tied=False, root=True, consolidated=None, expect=None, special="", head_dim=16, changes=None):
    tensors, c = hf.saved(hf.model(hf.config("llama", tie_word_embeddings=tied, head_dim=head_dim), dtype))
    case = Case(out, f"lingua-{name}", system="lingua", family="llama", packages=("torch",))
    case.config(c)
    state = meta_state(tensors, head_dim)
    state_file = case.folder / "state.pt"
    torch.save(state, state_file)
    folder = case.source / "checkpoints" / "0000000100"
    folder.mkdir(parents=True)
    ranks.run(world, train_and_save, folder, c, head_dim, state_file, dtype, root, changes or {})
    state_file.unlink()
    source = "source/checkpoints/0000000100"
    if consolidated:
        there = folder / "consolidated"
        there.mkdir()
        dcp_to_torch_save(folder, there / "consolidated.pth")
        (there / "params.json").write_text((folder / "params.json").read_text())
        theirs = torch.load(there / "consolidated.pth", weights_only=False)["model"]
        same({k: v for k, v in theirs.items() if not k.startswith("output.tied_module")}, state)
        if consolidated == "alone":
            source += "/consolidated"
            for file in [*folder.glob("*.distcp"), folder / ".metadata"]:
                file.unlink()
    by = "the Hugging Face model it came from" + ("; equal to the tensors of Lingua's consolidation" if consolidated else "")
    case.done(tensors, by=by, source=source, config_from=None, special=special, **({"expect_config": expect} if expect else {}))


def main(out):
    f32, bf16 = torch.float32, torch.bfloat16
    derived = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3, "num_hidden_layers": 3, "intermediate_size": 136, "vocab_size": 263, "rope_theta": 10000.0, "tie_word_embeddings": False}
    one(out, "w2-adam-f32", f32, 2, expect=derived, special="model and optim roots, vocab_size -1")
    one(out, "w3-bf16", bf16, 3, special="uneven shards", changes={"rope_theta": 500000.0}, expect={"rope_theta": 500000.0})
    one(out, "w2-noroot", f32, 2, root=False, special="no model root")
    one(out, "w2-tied", f32, 2, tied=True, special="tied: output.tied_module.weight", expect={"tie_word_embeddings": True})
    one(out, "w2-headdim-bf16", bf16, 2, head_dim=32, changes={"head_dim": 32}, special="head_dim is not dim/n_heads", expect={"head_dim": 32})
    one(out, "consolidated-f32", f32, 2, consolidated="alone", special="consolidated.pth with its optimizer")
    one(out, "consolidated-tied", bf16, 2, tied=True, consolidated="alone", special="consolidated.pth, tied")
    one(out, "beside-consolidated", f32, 2, consolidated="beside", special="the DCP folder that also holds its consolidated file")


if __name__ == "__main__":
    main(sys.argv[1])
