"""Meta's and Mistral's own layouts: params.json beside consolidated files.

    gen_meta.py OUT [META_PYTHON]

Neither training system is on the package registry: the files are torch.save and safetensors in exactly their shape (names, model-parallel
splits, shared storages). The reference is the Hugging Face model that was un-converted; for Llama, transformers 4.46.3's own converter
(run by META_PYTHON, always bf16) makes the second one.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import hf
from case import Case, own, same

HERE = pathlib.Path(__file__).parent
NAMES = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output", "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
         "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
         "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}


def interleave(w, head_dim):
    """Hugging Face's halves to Meta's pairs, head by head: the inverse of the converter's permute."""
    heads = w.shape[0] // head_dim
    return w.view(heads, 2, head_dim // 2, -1).transpose(1, 2).reshape(w.shape).contiguous()


def meta_state(tensors, head_dim, experts="feed_forward"):
    out = {}
    for name, value in tensors.items():
        stem = name.removesuffix(".weight")
        if stem.startswith("model.layers."):
            i, rest = stem.removeprefix("model.layers.").split(".", 1)
            if rest.startswith("block_sparse_moe."):
                rest = rest.replace("block_sparse_moe", experts)
            else:
                rest = NAMES[rest]
            if rest in ("attention.wq", "attention.wk"):
                value = interleave(value, head_dim)
            out[f"layers.{i}.{rest}.weight"] = value
        else:
            out[NAMES[stem] + ".weight"] = value
    return out


def split(state, parts, embedding_dim):
    """Model parallelism as fairscale does it; norms whole in every file."""
    axes = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1, "tok_embeddings": embedding_dim}
    axis = lambda name: axes.get(name.split(".")[-2])  # noqa: E731
    return [{k: own(v if axis(k) is None else v.chunk(parts, axis(k))[r]) for k, v in state.items()} for r in range(parts)]


def one_storage(part):
    """All weights of a file as views of one flat storage."""
    flat = torch.cat([v.reshape(-1) for v in part.values()])
    views = flat.split([v.numel() for v in part.values()])
    return {k: view.view(v.shape) for (k, v), view in zip(part.items(), views)}


def params_of(c, **changes):
    found = {"dim": c["hidden_size"], "n_layers": c["num_hidden_layers"], "n_heads": c["num_attention_heads"], "norm_eps": 1e-05, "multiple_of": 8,
             "ffn_dim_multiplier": 0.53, "vocab_size": c["vocab_size"], **changes}
    return {k: v for k, v in found.items() if v is not None}


def converted(python, source, parts, version, vocab):
    with tempfile.TemporaryDirectory() as target:
        subprocess.run([python, HERE / "meta_convert.py", source, target, str(parts), str(version), str(vocab)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {k: v.clone() for f in pathlib.Path(target).glob("*.safetensors") for k, v in load_file(f).items()}


def llama(out, python, name, generation, parts, dtype, *, params=None, tied=False, shared=False, sub="", expect=None, with_config=False, special="", **changes):
    cfg = hf.config("llama", tie_word_embeddings=tied, **changes)
    tensors, c = hf.saved(hf.model(cfg, dtype))
    case = Case(out, f"meta-{name}", system="meta", family="llama", packages=("torch", "transformers"))
    case.config(c)
    where = case.source / sub
    where.mkdir(exist_ok=True)
    whole = {**tensors, **({"lm_head.weight": tensors["model.embed_tokens.weight"]} if tied else {})}
    freqs = torch.ones(c["hidden_size"] // c["num_attention_heads"] // 2)
    for r, part in enumerate(split(meta_state(whole, c["hidden_size"] // c["num_attention_heads"]), parts, 1 if generation < 3 else 0)):
        torch.save({**(one_storage(part) if shared else part), **({"rope.freqs": freqs.to(dtype)} if generation < 3 else {})}, where / f"consolidated.{r:02}.pth")
    meta = params_of(c, **{"n_kv_heads": c["num_key_value_heads"], **(params or {})})
    (where / "params.json").write_text(json.dumps(meta))
    cast = None
    by = "the Hugging Face model it came from"
    if python:
        theirs = converted(python, where, parts, "3.2" if tied else generation, c["vocab_size"])
        theirs = {k: v for k, v in theirs.items() if "rotary" not in k and not (tied and k == "lm_head.weight")}
        same(theirs, {k: v.bfloat16() for k, v in tensors.items()})
        cast = (["--dtype", "bf16"], theirs, "transformers 4.46.3 convert_llama_weights_to_hf")
        by += "; transformers 4.46.3's converter agrees after its cast to bf16"
    case.done(tensors, by=by, config_from="config" if with_config else None, cast=cast if dtype != torch.bfloat16 else None, special=special, **({"expect_config": expect} if expect else {}))


MISTRAL = dict(head_dim=32)


def mistral_params(c, **more):
    return {"dim": c["hidden_size"], "n_layers": c["num_hidden_layers"], "head_dim": c["head_dim"], "hidden_dim": c["intermediate_size"], "n_heads": c["num_attention_heads"],
            "n_kv_heads": c["num_key_value_heads"], "norm_eps": 1e-05, "vocab_size": c["vocab_size"], "rope_theta": 1000000.0, **more}


def mistral(out, name, family, dtype, write, *, experts="feed_forward", params=None, expect=None, special="", **changes):
    changes = {**MISTRAL, **changes}
    tensors, c = hf.saved(hf.model(hf.config(family, **changes), dtype))
    c.setdefault("head_dim", changes["head_dim"])
    case = Case(out, f"mistral-{name}", system="mistral", family=family, packages=("torch", "transformers"))
    case.config(c)
    write(meta_state(tensors, changes["head_dim"], experts), case.source, c)
    (case.source / "params.json").write_text(json.dumps(mistral_params(c, **(params or {}))))
    case.done(tensors, by="the Hugging Face model it came from", config_from=None, special=special, **({"expect_config": expect} if expect else {}))


def consolidated(state, folder, c):
    save_file(state, folder / "consolidated.safetensors", metadata={"format": "pt"})


def sharded(state, folder, c):
    names = [f"consolidated-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    where = {k: names[n % 3] for n, k in enumerate(state)}
    for name in names:
        save_file({k: v for k, v in state.items() if where[k] == name}, folder / name, metadata={"format": "pt"})
    size = sum(v.numel() * v.element_size() for v in state.values())
    (folder / "consolidated.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}))


def pth(parts):
    def write(state, folder, c):
        for r, part in enumerate(split(state, parts, 1)):
            torch.save(part, folder / f"consolidated.{r:02}.pth")
    return write


def old_mixtral(state, folder, c):
    """Mixtral's first release: the experts of a layer in one matrix, w2 transposed; the files share out the layers."""
    fused, n = {}, c["num_local_experts"]
    for name, value in state.items():
        if ".experts." not in name:
            fused[name] = value
        elif name.endswith("experts.0.w1.weight"):
            stem = name.removesuffix("experts.0.w1.weight")
            expert = lambda e, w: state[f"{stem}experts.{e}.{w}.weight"]  # noqa: E731
            fused[stem + "w1"] = torch.cat([expert(e, "w1") for e in range(n)])
            fused[stem + "w2"] = torch.cat([expert(e, "w2").t() for e in range(n)]).contiguous()
            fused[stem + "w3"] = torch.cat([expert(e, "w3") for e in range(n)])
    for r in range(4):
        torch.save({k: own(v) for i, (k, v) in enumerate(fused.items()) if i * 4 // len(fused) == r}, folder / f"consolidated.{r:02}.pt")


def main(out, python=None):
    f32, f16, bf16 = torch.float32, torch.float16, torch.bfloat16
    mha = dict(num_key_value_heads=6)
    wide = lambda kv: dict(hidden_size=128, num_attention_heads=16, num_key_value_heads=kv, intermediate_size=192, vocab_size=264)  # noqa: E731
    fit = dict(multiple_of=8, ffn_dim_multiplier=0.5635)
    basic = {"hidden_size": 96, "num_attention_heads": 6, "num_hidden_layers": 3, "intermediate_size": 136, "vocab_size": 263}
    llama(out, python, "llama1-mp1-f16", 1, 1, f16, params={"n_kv_heads": None, "vocab_size": -1, "ffn_dim_multiplier": None, "multiple_of": 256}, expect={**basic, "num_key_value_heads": 6, "intermediate_size": 256}, special="llama 1: no n_kv_heads, vocab_size -1", intermediate_size=256, **mha)
    llama(out, python, "llama1-mp2-f16", 1, 2, f16, params={"n_kv_heads": None, "vocab_size": -1}, shared=True, special="embedding split on dim 1, views of one storage", vocab_size=264, **mha)
    llama(out, python, "llama2-mp8-gqa-bf16", 2, 8, bf16, params=fit, special="8 files, GQA, embedding split on dim 1", **wide(8))
    llama(out, python, "codellama-mp2-bf16", 2, 2, bf16, params={"n_kv_heads": None, "rope_theta": 1000000}, expect={"rope_theta": 1000000}, special="CodeLlama: rope_theta", vocab_size=266, **mha)
    llama(out, python, "llama3-mp1-f32", 3, 1, f32, params={"rope_theta": 500000.0}, expect={**basic, "num_key_value_heads": 3, "rope_theta": 500000.0}, special="one file")
    llama(out, python, "llama3-mp4-bf16", 3, 4, bf16, params={"rope_theta": 500000.0, **fit}, special="embedding split on dim 0", **wide(4))
    scaling = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    scaled = {"rope_theta": 500000.0, "use_scaled_rope": True, **fit}
    llama(out, python, "llama31-mp8-bf16", 3.1, 8, bf16, params=scaled, expect={"rope_theta": 500000.0, "rope_scaling": {**scaling, "factor": 32.0}}, special="llama 3.2 sizes: rope scaling 32", **wide(8))
    llama(out, None, "llama31-dim4096-bf16", 3.1, 1, bf16, params=scaled, expect={"rope_scaling": {**scaling, "factor": 8.0}}, special="llama 3.1 sizes: rope scaling 8", hidden_size=4096, num_attention_heads=32,
          num_key_value_heads=1, intermediate_size=8, vocab_size=16, num_hidden_layers=1)
    llama(out, python, "llama31-mp16-bf16", 3.1, 16, bf16, params=scaled, special="16 files", **wide(16))
    llama(out, None, "llama32-mp1-tied", 3.2, 1, bf16, params={"rope_theta": 500000.0, "use_scaled_rope": True}, tied=True, with_config=True, special="llama 3.2: tied by config, both tensors in the file")
    llama(out, python, "llama3-original-subfolder", 3, 1, bf16, params={"rope_theta": 500000.0}, sub="original", special="the original/ subfolder of a hub repository")
    mistral(out, "consolidated-bf16", "mistral", bf16, consolidated, expect={"head_dim": 32, "rope_theta": 1000000.0, "intermediate_size": 136}, special="consolidated.safetensors, head_dim from params")
    mistral(out, "sharded-f32", "mistral", f32, sharded, special="consolidated-0000i-of-00003.safetensors and an index")
    mistral(out, "pth-mp1-bf16", "mistral", bf16, pth(1), params={"sliding_window": 4096}, expect={"sliding_window": 4096}, special="consolidated.00.pth, sliding window")
    mistral(out, "pth-mp3-f16", "mistral", f16, pth(3), params={"sliding_window": "4096"}, special="three files, sliding_window as a string")
    moe = {"moe": {"num_experts_per_tok": 2, "num_experts": 4}}
    mistral(out, "mixtral-consolidated-bf16", "mixtral", bf16, consolidated, params=moe, special="feed_forward.experts.e.w1 as mistral-inference names them", num_local_experts=4)
    mistral(out, "mixtral-old-f32", "mixtral", f32, old_mixtral, experts="block_sparse_moe", params=moe, special="consolidated.0N.pt, experts in one matrix, w2 transposed", num_local_experts=4, head_dim=16)


if __name__ == "__main__":
    main(*sys.argv[1:])
