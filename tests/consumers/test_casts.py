"""A cast on read gives the very bits of torch's .to(); of NaNs it gives some NaN, as torch's builds differ there."""
import json

import pytest
import safetensors.torch
import torch

from mounts import mounted

FLOATS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def every_pattern(dtype):
    """Every value of a 16-bit type; of f32 the edges of all exponents and a million others; of f64 their neighbours."""
    if dtype == torch.float64:
        middle = every_pattern(torch.float32).double()
        wide = torch.tensor([1e-320, 1e300, -1e300, 5e-324, 3.4028235677973366e38, 2.0**-150, 2.0**-149 * 1.5], dtype=dtype)
        return torch.cat([middle, *(middle * (1 + sign * 2.0**-40) for sign in (-1, 1)), wide])
    if dtype != torch.float32:
        return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(-(2**31), 2**31, (1_000_000,), generator=generator, dtype=torch.int64)
    exponents = torch.arange(-(2**31), 2**31, 2**23, dtype=torch.int64)[:, None]
    halves = torch.tensor([0, 1, 0xFFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x7FFF, 0x8000, 0x8001, 0x17FFF, 0x18000])
    return torch.cat([random, (exponents + halves).flatten()]).to(torch.int32).view(torch.float32)


@pytest.mark.parametrize("source", [*FLOATS, "f64"])
@pytest.mark.parametrize("target", FLOATS)
def test_a_cast_gives_the_bits_of_torch(tmp_path, source, target):
    values = every_pattern(FLOATS.get(source, torch.float64))
    safetensors.torch.save_file({"weight": values}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "none"}))
    want = values.to(FLOATS[target])
    with mounted(tmp_path, "--dtype", target) as directory:
        got = safetensors.torch.load_file(directory / "model.safetensors")["weight"].clone()
    assert got.dtype == want.dtype
    bits = torch.int32 if target == "f32" else torch.int16
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got.view(bits)[~got.isnan()], want.view(bits)[~want.isnan()])
