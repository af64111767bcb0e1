"""Merged, dequantized and averaged weights against what PEFT, compressed-tensors, mergekit, transformers and DeepSeek's formula make."""
import gc
import json
import os
import pathlib
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaConfig

from mounts import mounted, refusal
from processes import ROOT

ENVS = pathlib.Path(os.environ.get("CKPTFS_ENVS", ROOT / "target" / "envs"))
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def made(script, environment, folder):
    program = pathlib.Path(__file__).with_name(script)
    subprocess.run([ENVS / environment / "bin" / "python", program, folder], check=True, timeout=600)
    return sorted(folder.iterdir())


def tensors(folder):
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def assert_equal(found, wanted, steps=0):
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        got = found[name]
        assert (got.dtype, got.shape) == (want.dtype, want.shape), name
        apart = (got.view(BITS[got.itemsize]).long() - want.view(BITS[want.itemsize]).long()).abs()
        assert apart.max() <= steps and (apart == 0).float().mean() >= 0.999, name


def check(case, subtests):
    arguments = case / "args.json"
    arguments = json.loads(arguments.read_text()) if arguments.exists() else ["--merge", case / "adapter"]
    with subtests.test(msg=case.name), mounted(case / "base", *arguments) as point:
        assert_equal(tensors(point), tensors(case / "merged"), steps=int("dora" in case.name))


def test_adapters_are_merged_as_peft_merges_them(tmp_path, subtests):
    cases = made("make_adapters.py", "base", tmp_path / "made")
    assert len(cases) >= 12
    for case in cases:
        check(case, subtests)
        tied = [json.loads((case / of / "config.json").read_text())["tie_word_embeddings"] for of in ("base", "merged")]
        if tied[0] == tied[1]:
            with mounted(case / "base", "--merge", case / "adapter") as point:
                assert (point / "config.json").read_bytes() == (case / "base/config.json").read_bytes()


def test_weights_of_compressed_tensors_are_those_that_it_decompresses(tmp_path, subtests):
    for case in made("make_quantized.py", "mergekit", tmp_path / "made"):
        check(case, subtests)


def test_averages_and_deltas_are_mergekits(tmp_path, subtests):
    for case in made("make_merges.py", "mergekit", tmp_path / "made"):
        check(case, subtests)


def generate(folder):
    """Tokens of the model in a folder, which nothing holds open afterwards."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    tokens = model.generate(torch.arange(8)[None], max_new_tokens=8, do_sample=False).tolist()
    del model
    gc.collect()
    return tokens


def test_blocks_of_fp8_are_those_of_deepseeks_formula(tmp_path):
    """Also where the last blocks are cut off: 576 and 200 are no multiples of 128."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, hidden_size=200, intermediate_size=576, num_hidden_layers=1, num_attention_heads=4)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    source, wanted = {}, {}
    for name, weight in model.state_dict().items():
        if not name.endswith("proj.weight"):
            source[name] = wanted[name] = weight
            continue
        rows, columns = weight.shape
        codes = (weight.float() * 1000).clamp(-448, 448).to(torch.float8_e4m3fn)
        scales = torch.rand(-(-rows // 128), -(-columns // 128)) / 1000
        spread = scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
        source |= {name: codes, name + "_scale_inv": scales}
        wanted[name] = (codes.float() * spread).to(torch.bfloat16)
    save_file({name: tensor.contiguous() for name, tensor in source.items()}, tmp_path / "model.safetensors")
    plain = json.loads(config.to_json_string()) | {"model_type": "llama", "dtype": "bfloat16"}
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (tmp_path / "config.json").write_text(json.dumps(plain | {"quantization_config": quantization}, indent=2))
    with mounted(tmp_path, "--dequantize", "bf16") as point:
        assert_equal(tensors(point), wanted)
        assert json.loads((point / "config.json").read_text()) == plain
        generated = generate(point)
    model.load_state_dict(wanted)
    model.save_pretrained(tmp_path / "merged")
    assert generated == generate(tmp_path / "merged")


def test_experts_of_gpt_oss_are_those_of_transformers(tmp_path):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    source, wanted = {}, {}
    for name, weight in model.state_dict().items():
        if not name.endswith("_proj") or ".experts." not in name:
            source[name] = wanted[name] = weight
            continue
        experts, inside, out = weight.shape
        blocks = torch.randint(0, 256, (experts, out, inside // 32, 16), dtype=torch.uint8)
        scales = torch.randint(110, 130, (experts, out, inside // 32), dtype=torch.uint8)
        source |= {name + "_blocks": blocks, name + "_scales": scales}
        wanted[name] = convert_moe_packed_tensors(blocks, scales).contiguous()
    save_file({name: tensor.contiguous() for name, tensor in source.items()}, tmp_path / "model.safetensors")
    plain = json.loads(config.to_json_string()) | {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}
    (tmp_path / "config.json").write_text(json.dumps(plain, indent=2))
    with mounted(tmp_path, "--dequantize", "bf16") as point:
        assert_equal(tensors(point), wanted)


def test_an_adapter_of_another_model_is_refused_by_name(tmp_path):
    cases = {case.name: case for case in made("make_adapters.py", "base", tmp_path / "made")}
    said = refusal(cases["bias-all"] / "base", "--merge", cases["linear-bf16"] / "adapter")
    assert "model.layers.0" in said and "adapter of another model" in said
    config = cases["linear-bf16"] / "adapter/adapter_config.json"
    for key, value in {"init_lora_weights": "pissa", "use_qalora": True, "layer_replication": [[0, 1]]}.items():
        kept = config.read_text()
        config.write_text(json.dumps(json.loads(kept) | {key: value}))
        assert key in refusal(cases["linear-bf16"] / "base", "--merge", config.parent)
        config.write_text(kept)
