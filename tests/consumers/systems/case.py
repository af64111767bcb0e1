"""Writes a case folder: source/ as the system wrote it, config/config.json, reference.safetensors, case.json.

A mistake is a folder with refuse.json instead of case.json: the mount must fail with one line that holds every given word.
"""
import json
import pathlib
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import torch
from safetensors.torch import save_file

PACKAGES = ("torch", "torchtitan", "torchtune", "torchao", "verl", "megatron-core", "transformers", "accelerate", "lightning", "peft")


def versions(*names):
    found = {"python": platform.python_version()}
    for name in names or PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


class Case:
    """One case under construction: fill self.source, then call done() or refused()."""

    def __init__(self, out, name, *, system, family, packages=("torch",)):
        self.folder = pathlib.Path(out) / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.source = self.folder / "source"
        self.source.mkdir(parents=True)
        self.spec = {"system": system, "family": family, "versions": versions(*packages)}

    def config(self, config):
        folder = self.folder / "config"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))

    def done(self, reference, *, by, source="source", config_from="config", args=(), special="", cast=None, **more):
        """`special`: what this checkpoint exercises; `cast`: (flags, tensors, converter) of a second comparison."""
        write(reference, self.folder / "reference.safetensors")
        spec = {**self.spec, "source": source, "config_from": config_from, "args": list(args), "reference_by": by, "notes": special, **more}
        if cast:
            flags, tensors, converter = cast
            write(tensors, self.folder / "reference.cast.safetensors")
            spec["also"] = {"args": list(flags), "reference": "reference.cast.safetensors", "by": converter}
        (self.folder / "case.json").write_text(json.dumps(spec, indent=2) + "\n")
        print("case", self.folder.name, flush=True)

    def refused(self, words, *, source="source", config_from=None, args=(), special=""):
        """`words`: what the one line on stderr must hold, case ignored; a list inside means any of them."""
        spec = {**self.spec, "source": source, "config_from": config_from, "args": list(args), "words": list(words), "notes": special}
        (self.folder / "refuse.json").write_text(json.dumps(spec, indent=2) + "\n")
        print("mistake", self.folder.name, flush=True)


def write(tensors, path):
    save_file({k: own(v) for k, v in tensors.items()}, path, metadata={"format": "pt"})


def own(tensor):
    """The same values in a storage of their own: save_file refuses shared ones."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def same(a, b):
    """Raise unless two dictionaries hold bitwise equal tensors: the converter's answer against an independent one."""
    if set(a) != set(b):
        raise AssertionError(f"names differ: {sorted(set(a) ^ set(b))[:8]}")
    for name in a:
        x, y = a[name].detach(), b[name].detach()
        if x.dtype != y.dtype or x.shape != y.shape or not torch.equal(bits(x), bits(y)):
            raise AssertionError(f"{name}: {x.dtype} {tuple(x.shape)} against {y.dtype} {tuple(y.shape)}")


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)
