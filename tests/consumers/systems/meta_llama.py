"""Llama as Meta publishes it: params.json and one consolidated.0N.pth per model-parallel rank."""
import json

import torch

PARAMS = {"dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 512, "multiple_of": 32}
PARAMS |= {"ffn_dim_multiplier": 0.9, "norm_eps": 1e-5, "rope_theta": 10000.0}


def split_axes(generation):
    """The axis that model parallelism splits. The embedding's is 1 before Llama 3, then 0; norms are in every file."""
    rows = dict.fromkeys(("attention.wq", "attention.wk", "attention.wv", "feed_forward.w1", "feed_forward.w3", "output"), 0)
    return rows | {"attention.wo": 1, "feed_forward.w2": 1, "tok_embeddings": 0 if generation >= 3 else 1}


def weights(params, dtype):
    """Random weights under Meta's names, the norms random too."""
    torch.manual_seed(0)
    dim, vocab = params["dim"], params["vocab_size"]
    keys = dim // params["n_heads"] * params["n_kv_heads"]
    hidden = int(params["ffn_dim_multiplier"] * int(8 * dim / 3))
    hidden = -(-hidden // params["multiple_of"]) * params["multiple_of"]
    shapes = {"tok_embeddings": (vocab, dim), "norm": (dim,), "output": (vocab, dim)}
    for i in range(params["n_layers"]):
        shapes |= {
            f"layers.{i}.attention.wq": (dim, dim),
            f"layers.{i}.attention.wk": (keys, dim),
            f"layers.{i}.attention.wv": (keys, dim),
            f"layers.{i}.attention.wo": (dim, dim),
            f"layers.{i}.feed_forward.w1": (hidden, dim),
            f"layers.{i}.feed_forward.w2": (dim, hidden),
            f"layers.{i}.feed_forward.w3": (hidden, dim),
            f"layers.{i}.attention_norm": (dim,),
            f"layers.{i}.ffn_norm": (dim,),
        }
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


def write(folder, parallel, generation=3, dtype=torch.bfloat16, **changes):
    """As Meta's files are: before Llama 3 the weights of a file are views of one storage, and rope.freqs is kept."""
    folder.mkdir(parents=True)
    params = PARAMS | changes
    (folder / "params.json").write_text(json.dumps(params))
    axes = split_axes(generation)
    full = weights(params, dtype)
    for rank in range(parallel):
        part = {}
        for name, tensor in full.items():
            axis = axes.get(name.split(".", 2)[-1] if name.startswith("layers.") else name)
            part[name + ".weight"] = tensor if axis is None else tensor.chunk(parallel, axis)[rank].clone()
        if generation < 3:
            part = views_of_one_storage(part)
            part["rope.freqs"] = torch.ones(params["dim"] // params["n_heads"] // 2, dtype=dtype)
        torch.save(part, folder / f"consolidated.{rank:02}.pth")


def views_of_one_storage(tensors):
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
    parts = flat.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts)}
