"""A ZeRO-3 save of a 7B model on 8 ranks in sparse files: every structure is real, every weight a hole.

    sparse_zero3.py OUT [RANKS]

The pickles name storages as torch does, so that torch.load reads the files too, given the disk. One layer is not a hole: each
float of its parameters is its own index.
"""
import collections
import io
import json
import math
import pathlib
import pickle
import struct
import sys
import zlib

import torch

LAYERS, HIDDEN, MIDDLE, VOCABULARY = 32, 4096, 11008, 32000
MARKED = "model.layers.7."


def shapes():
    """The parameters of Llama 2 7B in the model's order."""
    found = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        own = f"model.layers.{layer}"
        found |= {f"{own}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        found |= {f"{own}.mlp.gate_proj.weight": (MIDDLE, HIDDEN), f"{own}.mlp.up_proj.weight": (MIDDLE, HIDDEN), f"{own}.mlp.down_proj.weight": (HIDDEN, MIDDLE)}
        found |= {f"{own}.{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


class Storage:
    def __init__(self, key, kind, count):
        self.key, self.kind, self.count = key, kind, count


class Tensor:
    def __init__(self, storage, shape):
        self.storage, self.shape = storage, shape

    def __reduce__(self):
        strides = tuple(math.prod(self.shape[dim + 1:]) for dim in range(len(self.shape)))
        return torch._utils._rebuild_tensor_v2, (self.storage, 0, self.shape, strides, False, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", value.kind, value.key, "cpu", value.count)


def write(path, value, sizes, parts=()):
    """A zip of torch.save: the pickle, and a storage of so many bytes for each key. `parts`: (key, offset, bytes) that are no holes."""
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(value)
    members = [("data.pkl", buffer.getvalue(), None), ("byteorder", b"little", None), ("version", b"3\n", None)]
    members += [(f"data/{key}", b"", size) for key, size in sizes.items()]
    with open(path, "wb") as file:
        directory, places = [], {}
        for name, data, size in members:
            name = f"archive/{name}".encode()
            size = len(data) if size is None else size
            sums = zlib.crc32(data) if data else 0
            at = file.tell()
            long = struct.pack("<HHQQ", 1, 16, size, size)
            file.write(struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 45, 0x800, 0, 0, 0, sums, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(long)) + name + long + data)
            places[name.rsplit(b"/", 1)[-1].decode()] = file.tell()
            file.seek(at + 30 + len(name) + len(long) + size)
            extra = struct.pack("<HHQQQ", 1, 24, size, size, at)
            directory.append(struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 45, 45, 0x800, 0, 0, 0, sums, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(extra), 0, 0, 0, 0, 0xFFFFFFFF) + name + extra)
        start = file.tell()
        file.write(b"".join(directory))
        end, length = file.tell(), file.tell() - start
        file.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, len(members), len(members), length, start))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        file.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
        for key, offset, data in parts:
            file.seek(places[key] + offset)
            file.write(data)


def main(out, world=8):
    folder = pathlib.Path(out) / "global_step1"
    folder.mkdir(parents=True)
    all_shapes = collections.OrderedDict((name, torch.Size(shape)) for name, shape in shapes().items())
    width = sum(math.ceil(shape.numel() / world) for shape in all_shapes.values())
    for rank in range(world):
        module = collections.OrderedDict((name, Tensor(Storage(str(index), torch.BFloat16Storage, 0), (0,))) for index, name in enumerate(all_shapes))
        model = {"module": module, "buffer_names": [], "optimizer": None, "param_shapes": [all_shapes], "frozen_param_shapes": None, "shared_params": {},
                 "frozen_param_fragments": None, "global_steps": 1, "skipped_steps": 0, "dp_world_size": world, "mp_world_size": 1, "ds_version": "0.19.8"}
        write(folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt", model, {str(index): 0 for index in range(len(module))})
        flat = {key: Tensor(Storage(key, torch.FloatStorage, width), (width,)) for key in "012"}
        states = {"partition_count": world, "fp32_flat_groups": [flat["2"]],
                  "optimizer_state_dict": {"state": {0: {"step": 1, "exp_avg": flat["0"], "exp_avg_sq": flat["1"]}}, "param_groups": [{"lr": 1e-5}]}}
        parts, offset = [], 0
        for name, shape in all_shapes.items():
            share = math.ceil(shape.numel() / world)
            if name.startswith(MARKED) and "layernorm" in name:
                parts.append(("2", 4 * offset, torch.arange(rank * share, (rank + 1) * share, dtype=torch.float32).numpy().tobytes()))
            offset += share
        write(folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt", {"optimizer_state_dict": states}, {key: 4 * width for key in "012"}, parts)
    (folder.parent / "latest").write_text(folder.name)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": MIDDLE, "num_hidden_layers": LAYERS,
              "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": VOCABULARY, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "tie_word_embeddings": False, "dtype": "bfloat16"}
    (folder.parent / "config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
