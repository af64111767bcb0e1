"""What the two torchtitan generators share."""
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class TrainState:
    def state_dict(self):
        return {"step": torch.tensor(10), "ntokens_seen": torch.tensor(4096)}

    def load_state_dict(self, state):
        pass


def shard(model, mesh_shape):
    mesh = init_device_mesh("cpu", mesh_shape, mesh_dim_names=("replicate", "shard")[-len(mesh_shape):])
    for layer in model.layers.values():
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def fill(model, full):
    """Load full tensors into the sharded model; what `full` lacks (buffers without a Hugging Face name) stays."""
    mine = model.state_dict()
    unknown = set(full) - set(mine)
    assert not unknown, f"the model lacks {sorted(unknown)[:5]}"
    own = ("expert_bias", "tokens_per_expert")  # a Hugging Face model has none, nor the prediction modules of mtp_layers
    absent = {name for name in set(mine) - set(full) if not (name.startswith("mtp_layers.") or name.rsplit(".", 1)[-1].startswith(own))}
    assert not absent, f"nothing fills {sorted(absent)[:5]}"
    model.load_state_dict({name: like(full[name], tensor) if name in full else tensor for name, tensor in mine.items()})


def like(value, tensor):
    value = value.to(tensor.dtype)
    return distribute_tensor(value, tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else value


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def bias_experts(model):
    """A load-balancing bias as training leaves it: not zero."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.rsplit(".", 1)[-1].startswith("expert_bias"):
                buffer.copy_(torch.arange(buffer.numel(), dtype=buffer.dtype) * 0.25 + 0.1)


class GptOssExperts:
    """What titan's own adapter drops or names wrongly: transformers holds the last two axes the other way round."""

    def __init__(self, prefix, names):
        self.prefix, self.names = prefix, dict(zip(("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias"), names))

    def pairs(self, layers):
        for i in range(layers):
            for theirs, mine in self.names.items():
                yield f"model.layers.{i}.mlp.experts.{theirs}", self.prefix.format(i) + mine, not theirs.endswith("bias")

    def to_hf(self, state, layers):
        return {hf: turn(state[titan]) if turned else state[titan] for hf, titan, turned in self.pairs(layers)}

    def from_hf(self, tensors, layers):
        return {titan: turn(tensors[hf]) if turned else tensors[hf] for hf, titan, turned in self.pairs(layers)}


def turn(tensor):
    return tensor.transpose(-1, -2).contiguous()


def started(mine, wanted):
    """Whether a model that started from a mount has the adapter's tensors, in its own type; what these lack is zero."""
    mine = {name: whole(tensor) for name, tensor in mine.items() if not name.rsplit(".", 1)[-1].startswith("tokens_per_expert")}
    assert set(wanted) <= set(mine), set(wanted) - set(mine)
    for name, tensor in mine.items():
        if name in wanted:
            assert torch.equal(tensor, wanted[name].to(tensor.dtype)), name
        elif name == "lm_head.weight":
            assert torch.equal(tensor, mine["tok_embeddings.weight"])
        else:
            assert name.rsplit(".", 1)[-1].startswith("expert_bias") and not tensor.any(), name
