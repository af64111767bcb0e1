"""Merged, dequantized and averaged weights against what PEFT, compressed-tensors, mergekit, transformers and DeepSeek's formula make."""
import gc
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaConfig

import processes
import tiny
from mounts import mounted, refusal
from processes import ROOT

ENVS = pathlib.Path(os.environ.get("CKPTFS_ENVS", ROOT / "target" / "envs"))
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


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
    merging = [word for name in ("adapter", "second") if (case / name).exists() for word in ("--merge", case / name)]
    arguments = json.loads(arguments.read_text()) if arguments.exists() else merging
    with subtests.test(msg=case.name), mounted(case / "base", *arguments) as point:
        assert_equal(tensors(point), tensors(case / "merged"), steps=int("dora" in case.name))


def test_adapters_are_merged_as_peft_merges_them(tmp_path, subtests):
    cases = made("make_adapters.py", "base", tmp_path / "made")
    for case in (case for case in cases if case.name.startswith("refused-")):
        with subtests.test(msg=case.name):
            assert "DoRA" in refusal(case / "base", "--merge", case / "adapter")
    cases = [case for case in cases if not case.name.startswith("refused-")]
    assert len(cases) >= 12
    for case in cases:
        check(case, subtests)
        tied = [json.loads((case / of / "config.json").read_text())["tie_word_embeddings"] for of in ("base", "merged")]
        if tied[0] == tied[1]:
            with mounted(case / "base", "--merge", case / "adapter") as point:
                assert (point / "config.json").read_bytes() == (case / "base/config.json").read_bytes()


def test_adapters_of_an_older_peft_are_merged_as_it_merges_them(tmp_path, subtests):
    for case in made("make_old_adapters.py", "peft-old", tmp_path / "made"):
        check(case, subtests)


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
        source |= {name: codes, name + "_scale_inv": scales}
        wanted[name] = blocks_as_floats(codes, scales)
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


def save(folder, config, source, **quantization):
    """A folder of quantized tensors; its config without what quantizes them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in source.items()}, folder / "model.safetensors", {"format": "pt"})
    plain = json.loads(config.to_json_string()) | {"model_type": config.model_type, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(plain | {"quantization_config": quantization}, indent=2))
    return plain


def powers_of_two(*shape):
    """Scales of E8M0 between 2^-9 and 2^-6."""
    return torch.randint(118, 122, shape, dtype=torch.uint8).view(torch.float8_e8m0fnu)


@pytest.mark.parametrize("spelling", ["scale", "weight_scale_inv"])
def test_blocks_and_experts_of_deepseek_v4_are_those_of_transformers(tmp_path, spelling):
    """Experts of two FP4 codes in a byte, blocks of 128 elsewhere, in the release's names and in transformers' own."""
    from transformers import AutoConfig
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    torch.manual_seed(0)
    config = AutoConfig.for_model("deepseek_v4", **DEEPSEEK_V4)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(tmp_path / "plain")
    dequantized = Fp8Dequantize(None)._dequantize_one
    source, wanted = {}, {}
    for name, weight in tensors(tmp_path / "plain").items():
        is_matrix = "layers." in name and name.endswith(".weight") and weight.ndim == 2 and all(size % 128 == 0 for size in weight.shape)
        if not is_matrix:
            source[name] = wanted[name] = weight
            continue
        rows, columns = weight.shape
        if ".experts." in name:
            codes, scales = torch.randint(-128, 128, (rows, columns // 2), dtype=torch.int8), powers_of_two(rows, columns // 32)
        else:
            codes = (weight.float() * 1000).clamp(-448, 448).to(torch.float8_e4m3fn)
            scales = powers_of_two(rows // 128, columns // 128)
        source |= {name: codes, name.removesuffix("weight") + spelling: scales}
        wanted[name] = dequantized(codes, scales, torch.bfloat16)
    assert any(tensor.dtype == torch.int8 for tensor in source.values())
    assert any(name.endswith("_scale") and not name.endswith("weight_scale") for name in wanted), "parameters that are called scale"
    save(tmp_path / "fp8", config, source, quant_method="fp8", weight_block_size=[128, 128], scale_fmt="ue8m0")
    with mounted(tmp_path / "fp8", "--dequantize", "bf16") as point:
        assert_equal(tensors(point), wanted)


DEEPSEEK_V4 = dict(vocab_size=128, hidden_size=256, moe_intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, n_routed_experts=2, num_experts_per_tok=1)


def by_rows(weight):
    """fbgemm's quantize_fp8_per_row: codes, and a scale for each row."""
    scales = weight.float().abs().amax(-1, keepdim=True) / 448
    return (weight.float() / scales).to(torch.float8_e4m3fn), scales


def test_rows_of_fbgemm_are_codes_times_scales(tmp_path):
    """Linear weights by rows; Llama 4's fused experts by the rows that transformers transposes them for."""
    from transformers import Llama4TextConfig

    torch.manual_seed(0)
    config = Llama4TextConfig(
        vocab_size=64, hidden_size=48, intermediate_size=40, intermediate_size_mlp=56, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, num_local_experts=3, interleave_moe_layer_step=2, attn_implementation="eager",
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(tmp_path / "plain")
    source, wanted = {}, {}
    for name, weight in tensors(tmp_path / "plain").items():
        if name.endswith("_proj.weight"):
            codes, scales = by_rows(weight)
            source |= {name: codes, f"{name}_scale": scales}
        elif ".experts." in name:
            codes, scales = by_rows(weight.transpose(1, 2))
            codes = codes.transpose(1, 2)
            # FbgemmFp8Quantize leaves those of down_proj as they are, though they are for columns, too.
            source |= {name: codes, f"{name}_scale": scales if name.endswith("down_proj") else scales.transpose(1, 2)}
            scales = scales.transpose(1, 2)
        else:
            source[name] = wanted[name] = weight
            continue
        wanted[name] = (codes.float() * scales).to(torch.bfloat16)
    save(tmp_path / "fp8", config, source, quant_method="fbgemm_fp8", activation_scale_ub=1200.0)
    with mounted(tmp_path / "fp8", "--dequantize", "bf16") as point:
        assert_equal(tensors(point), wanted)


def test_an_adapter_is_merged_over_a_quantized_base(tmp_path):
    """As PEFT merges it over the base that was dequantized and written."""
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, hidden_size=96, intermediate_size=200, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "plain")
    with mounted(tmp_path / "plain", "--quantize", "fp8") as point:
        shutil.copytree(point, tmp_path / "fp8")
    with mounted(tmp_path / "fp8", "--dequantize", "bf16") as point:
        shutil.copytree(point, tmp_path / "floats")
    adapted = get_peft_model(model, LoraConfig(r=5, lora_alpha=9, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "floats", dtype=torch.bfloat16)
    PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().save_pretrained(tmp_path / "merged")
    with mounted(tmp_path / "fp8", "--dequantize", "bf16", "--merge", tmp_path / "adapter") as point:
        assert_equal(tensors(point), tensors(tmp_path / "merged"))
    assert "--dequantize" in refusal(tmp_path / "fp8", "--merge", tmp_path / "adapter")


def test_members_of_an_average_may_be_of_several_systems(tmp_path):
    """A Hugging Face folder, a DCP and a file of torch.save; a member of another shape is refused with its first difference."""
    import torch.distributed.checkpoint

    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    for number, name in enumerate(("first", "second", "third")):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
        model.save_pretrained(tmp_path / name)
        torch.distributed.checkpoint.save({"model": model.state_dict()}, checkpoint_id=tmp_path / f"{name}-dcp")
        torch.save(model.state_dict(), tmp_path / f"{name}.pt")
    average = lambda *members: [word for member in members for word in ("--average", tmp_path / member)]  # noqa: E731
    weights = ("--weights", "0.5,0.3,0.2")
    with mounted(tmp_path / "first", *average("second", "third"), *weights) as point:
        wanted = {name: tensor.clone() for name, tensor in tensors(point).items()}
        gc.collect()
    for source, members in (("first", ("second-dcp", "third.pt")), ("first-dcp", ("second.pt", "third")), ("first.pt", ("second", "third-dcp"))):
        with mounted(tmp_path / source, *average(*members), *weights, "--config-from", tmp_path / "first") as point:
            assert_equal(tensors(point), wanted)
    other = LlamaConfig(**{**config.to_dict(), "intermediate_size": 80})
    AutoModelForCausalLM.from_config(other).to(torch.bfloat16).save_pretrained(tmp_path / "other")
    said = refusal(tmp_path / "first", *average("other"))
    assert "other" in said and "model.layers.0.mlp" in said and "80" in said, said


def tokens_of_vllm(folder):
    quiet = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    (printed,) = processes.run("readers/vllm_generate.py", folder, environment="vllm", timeout=900, **quiet)
    return json.loads(re.search(r"^tokens (.*)$", printed, re.MULTILINE)[1])


def test_vllm_generates_from_computed_mounts_what_it_generates_from_the_libraries_copies(tmp_path):
    """PEFT's merged copy; and a copy of the weights that block fp8 stands for, by DeepSeek's formula."""
    from peft import LoraConfig, PeftModel, get_peft_model

    base = tiny.model(num_attention_heads=2, num_key_value_heads=1, dtype="bfloat16")  # its CPU attention wants head_dim 32
    base.save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(r=8, lora_alpha=64, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    PeftModel.from_pretrained(plain, tmp_path / "adapter").merge_and_unload().save_pretrained(tmp_path / "merged")
    with mounted(tmp_path / "base", "--merge", tmp_path / "adapter") as point:
        merged = tokens_of_vllm(point)
    assert merged == tokens_of_vllm(tmp_path / "merged") != tokens_of_vllm(tmp_path / "base")
    with mounted(tmp_path / "merged", "--quantize", "fp8") as point:
        shutil.copytree(point, tmp_path / "fp8")
    source = tensors(tmp_path / "fp8")
    floats = {name: blocks_as_floats(tensor, source.get(f"{name}_scale_inv")) for name, tensor in source.items() if not name.endswith("_scale_inv")}
    shutil.copytree(tmp_path / "merged", tmp_path / "floats")
    save_file(floats, tmp_path / "floats/model.safetensors", {"format": "pt"})
    with mounted(tmp_path / "fp8", "--dequantize", "bf16") as point:
        assert tokens_of_vllm(point) == tokens_of_vllm(tmp_path / "floats")


def blocks_as_floats(codes, scales):
    """DeepSeek's weight_dequant."""
    if scales is None:
        return codes
    rows, columns = codes.shape
    spread = scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
    return (codes.float() * spread).to(torch.bfloat16)


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
