#!/usr/bin/env python3
"""make.py CKPTFS: makes the pictures of this folder, pages of `ckptfs inspect --html` as Chromium shows them.

The models are sparse files of real structure: a dense one of 70 B and a mixture of 128 experts.
"""
import json
import pathlib
import shutil
import struct
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
LLAMA_70B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "intermediate_size": 28672,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}
QWEN3_30B = {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": False,
}


def mlp(prefix, hidden, inner):
    yield f"{prefix}.gate_proj.weight", [inner, hidden]
    yield f"{prefix}.up_proj.weight", [inner, hidden]
    yield f"{prefix}.down_proj.weight", [hidden, inner]


def shapes(config):
    """Names and shapes in the order of the model."""
    hidden, experts = config["hidden_size"], config.get("num_experts")
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield f"{at}.self_attn.q_proj.weight", [queries, hidden]
        yield f"{at}.self_attn.k_proj.weight", [keys, hidden]
        yield f"{at}.self_attn.v_proj.weight", [keys, hidden]
        yield f"{at}.self_attn.o_proj.weight", [hidden, queries]
        if experts:
            yield f"{at}.self_attn.q_norm.weight", [head]
            yield f"{at}.self_attn.k_norm.weight", [head]
            yield f"{at}.mlp.gate.weight", [experts, hidden]
            for expert in range(experts):
                yield from mlp(f"{at}.mlp.experts.{expert}", hidden, config["moe_intermediate_size"])
        else:
            yield from mlp(f"{at}.mlp", hidden, config["intermediate_size"])
        yield f"{at}.input_layernorm.weight", [hidden]
        yield f"{at}.post_attention_layernorm.weight", [hidden]
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [config["vocab_size"], hidden]


def write_model(folder, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in shapes(config):
        start, end = end, end + 2 * shape[0] * (shape[1] if shape[1:] else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def take(page, picture, is_dark):
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if is_dark else []
    command = [shutil.which("chromium") or "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *dark]
    command += ["--virtual-time-budget=3000", "--window-size=1440,900", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)


def main(ckptfs):
    ckptfs = pathlib.Path(ckptfs).resolve()
    # The pages show the path.
    work = pathlib.Path("/tmp/models")
    work.mkdir()
    try:
        for name, config in {"llama-70b": LLAMA_70B, "qwen3-30b-a3b": QWEN3_30B}.items():
            write_model(work / name, config)
            subprocess.run([ckptfs, "inspect", name, "--html", f"{name}.html"], check=True, cwd=work, stdout=subprocess.DEVNULL)
            for theme in ("light", "dark"):
                take(work / f"{name}.html", HERE / f"{name}-{theme}.png", theme == "dark")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
