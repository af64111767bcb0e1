"""A tiny model in every scheme of compressed-tensors that is read, each with what its library decompresses."""
import json
import pathlib
import sys

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

out = pathlib.Path(sys.argv[1])
CFG = LlamaConfig(vocab_size=96, hidden_size=128, intermediate_size=192, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
ODD = LlamaConfig(vocab_size=96, hidden_size=120, intermediate_size=200, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, head_dim=30)
A = QuantizationArgs
CASES = {
 "int4-sym-g32": ("pack-quantized", CFG, A(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32), torch.bfloat16),
 "int4-asym-g64": ("pack-quantized", CFG, A(num_bits=4, type="int", symmetric=False, strategy="group", group_size=64), torch.bfloat16),
 "int4-asym-channel-odd": ("pack-quantized", ODD, A(num_bits=4, type="int", symmetric=False, strategy="channel"), torch.bfloat16),
 "int8-pack-g32": ("pack-quantized", CFG, A(num_bits=8, type="int", symmetric=True, strategy="group", group_size=32), torch.bfloat16),
 "int8-pack-asym-channel": ("pack-quantized", CFG, A(num_bits=8, type="int", symmetric=False, strategy="channel"), torch.bfloat16),
 "int8-channel": ("int-quantized", CFG, A(num_bits=8, type="int", symmetric=True, strategy="channel"), torch.bfloat16),
 "int8-tensor": ("int-quantized", CFG, A(num_bits=8, type="int", symmetric=True, strategy="tensor"), torch.bfloat16),
 "int8-asym-channel": ("int-quantized", CFG, A(num_bits=8, type="int", symmetric=False, strategy="channel"), torch.bfloat16),
 "fp8-channel": ("float-quantized", ODD, A(num_bits=8, type="float", symmetric=True, strategy="channel"), torch.bfloat16),
 "fp8-tensor": ("float-quantized", CFG, A(num_bits=8, type="float", symmetric=True, strategy="tensor"), torch.bfloat16),
 "fp8-block": ("float-quantized", ODD, A(num_bits=8, type="float", symmetric=True, strategy="block", block_structure=[128, 128]), torch.bfloat16),
 "fp8-channel-f32scale": ("float-quantized", CFG, A(num_bits=8, type="float", symmetric=True, strategy="channel"), torch.float32),
 "nvfp4": ("nvfp4-pack-quantized", CFG, A(num_bits=4, type="float", symmetric=True, strategy="tensor_group", group_size=16, scale_dtype=torch.float8_e4m3fn), torch.bfloat16),
 "mxfp4": ("mxfp4-pack-quantized", CFG, A(num_bits=4, type="float", symmetric=True, strategy="group", group_size=32, scale_dtype=torch.uint8, zp_dtype=torch.uint8), torch.bfloat16),
}


def ranges(weight, args):
    """Least and largest element of each block."""
    strategy = getattr(args.strategy, "value", args.strategy)
    if strategy == "tensor":
        return weight.min().reshape(1), weight.max().reshape(1)
    if strategy == "channel":
        return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    if strategy in ("group", "tensor_group"):
        groups = weight.reshape(weight.shape[0], -1, args.group_size)
        return groups.amin(-1), groups.amax(-1)
    height, width = args.block_structure
    bands = [band.split(width, 1) for band in weight.split(height, 0)]
    return tuple(torch.tensor([[f(block) for block in band] for band in bands]) for f in (torch.min, torch.max))


def compressed(weight, format, args, scale_dtype):
    """The parts of a quantized weight, and the weight that its library makes of them."""
    compressor = BaseCompressor.get_value_from_registry(format)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    state, options = {"weight": weight}, {}
    if format.startswith("nvfp4"):
        options["global_scale"] = (448 * 6 / weight.float().abs().max()).reshape(1)
        state["weight_global_scale"] = options["global_scale"]
    scale, zero_point = calculate_qparams(*ranges(weight.float(), args), args, **options)
    is_narrow = scale.dtype in (torch.uint8, torch.float8_e4m3fn)
    state["weight_scale"] = scale if is_narrow else scale.to(scale_dtype)
    if not args.symmetric:
        state["weight_zero_point"] = zero_point
    parts = compressor.compress(state, scheme)
    return parts, compressor.decompress(parts, scheme)["weight"]


def save(folder, tensors, config):
    folder.mkdir(parents=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def make(folder, format, config, args, scale_dtype):
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    source, reference = {}, {}
    for name, weight in model.state_dict().items():
        if not name.endswith("proj.weight"):
            source[name] = reference[name] = weight
            continue
        parts, floats = compressed(weight, format, args, scale_dtype)
        module = name.removesuffix("weight")
        source |= {module + part: tensor for part, tensor in parts.items()}
        reference[name] = floats.to(torch.bfloat16)
    plain = json.loads(config.to_json_string()) | {"model_type": "llama", "dtype": "bfloat16"}
    groups = {"group_0": {"weights": json.loads(args.model_dump_json())}}
    quantization = {"quant_method": "compressed-tensors", "format": format, "config_groups": groups}
    save(folder / "base", source, plain | {"quantization_config": quantization})
    save(folder / "merged", reference, plain)
    (folder / "args.json").write_text(json.dumps(["--dequantize", "bf16"]))


for name, case in CASES.items():
    torch.manual_seed(3)
    make(out / name, *case)
