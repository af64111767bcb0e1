"""open_and_compare.py SOURCE EXPORT [--config-from DIR]: compares `ckptfs.open` with the exported files, tensor by tensor and file by
file, also as safetensors' own reader names its methods."""
import pathlib
import sys

import torch
from safetensors import safe_open

import ckptfs

source, export, *options = sys.argv[1:]
checkpoint = ckptfs.open(source, *options)
names = []
for path in sorted(pathlib.Path(export).glob("*.safetensors")):
    with safe_open(path, "pt") as real:
        for name in real.keys():
            names.append(name)
            want, got = real.get_tensor(name), checkpoint.get_tensor(name)
            assert got.dtype == want.dtype and got.shape == want.shape, name
            assert torch.equal(got.view(torch.uint8) if got.ndim else got, want.view(torch.uint8) if want.ndim else want), name
            assert checkpoint[name].get_dtype() == real.get_slice(name).get_dtype()
            assert checkpoint.get_slice(name).get_shape() == real.get_slice(name).get_shape()
assert sorted(checkpoint.keys()) == sorted(names) and len(checkpoint) == len(names)
for path, file in checkpoint.files().items():
    assert file.read() == pathlib.Path(export, path).read_bytes(), path
    assert file.read(3, 5) == pathlib.Path(export, path).read_bytes()[3:8], path
assert {tensor["name"] for tensor in checkpoint.inspect()["tensors"]} == set(names)
print("equal", len(names))
