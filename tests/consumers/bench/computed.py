"""Computed tensors beside a ready copy that is itself read through a mount, under other names: interleaved, cold and hot.

    computed.py FOLDER [--rounds 5] [--layers 8] [KIND ...]

Makes its sources in FOLDER: LAYERS matrices of 64 MiB in bf16. Prints the medians of the ratios of delivered bytes per second (1 is
the ready copy's), of CPU seconds of the daemon per delivered GB, its own and the ready copy's, and the daemon's largest memory.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from first_forward import cold  # noqa: E402
from mounts import BINARY  # noqa: E402

ROWS, COLUMNS = 4096, 8192
BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn
PIECE = 1 << 20


def save(folder, tensors, name="model.safetensors", config=("config.json", {"model_type": "free"})):
    if not folder.exists():
        folder.mkdir(parents=True)
        save_file({key: make().contiguous() for key, make in tensors.items()}, folder / name, {"format": "pt"})
        (folder / config[0]).write_text(json.dumps(config[1]))


def matrix():
    return (torch.randn(ROWS, COLUMNS) * 0.02).to(BF16)


def random_bytes(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def sources(folder, layers):
    """The ready copy under names that a mount changes, and the source of each kind with its flags."""
    names = [f"layers.{number}.weight" for number in range(layers)]
    save(folder / "ready", {f"_orig_mod.{name}": matrix for name in names})
    for member in ("base", "second"):
        save(folder / member, {name: matrix for name in names})
    blocks = lambda: torch.rand(ROWS // 128, COLUMNS // 128) / 1000  # noqa: E731
    codes = lambda: (torch.randn(ROWS, COLUMNS) * 100).to(FP8)  # noqa: E731
    save(folder / "fp8", {name: codes for name in names} | {f"{name}_scale_inv": blocks for name in names})
    packed, scales = (lambda: random_bytes(ROWS, COLUMNS // 2)), (lambda: torch.randint(110, 130, (ROWS, COLUMNS // 32), dtype=torch.uint8))
    save(folder / "mxfp4", {f"{name}_packed": packed for name in names} | {f"{name}_scale": scales for name in names})
    for rank in (16, 64):
        sides = {"A": (rank, COLUMNS), "B": (ROWS, rank)}
        parts = {f"base_model.model.{name.removesuffix('weight')}lora_{part}.weight": (lambda shape=shape: torch.randn(shape) * 0.01)
                 for name in names for part, shape in sides.items()}  # fmt: skip
        config = ("adapter_config.json", {"peft_type": "LORA", "r": rank, "lora_alpha": rank})
        save(folder / f"lora{rank}", parts, "adapter_model.safetensors", config)
    return {
        "block fp8": ("fp8", "--dequantize", "bf16"),
        "MXFP4": ("mxfp4", "--dequantize", "bf16"),
        "average of two": ("base", "--average", folder / "second"),
        "LoRA, r=16": ("base", "--merge", folder / "lora16"),
        "LoRA, r=64": ("base", "--merge", folder / "lora64"),
        "to block fp8": ("base", "--quantize", "fp8"),
    }


@contextlib.contextmanager
def served(source, *flags):
    """A mount and its process."""
    with tempfile.TemporaryDirectory(prefix="ckptfs-") as point:
        process = subprocess.Popen([BINARY, "mount", source, point, *map(str, flags)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process.stdout.readline()
        try:
            yield pathlib.Path(point), process.pid
        finally:
            process.terminate()
            process.wait()


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def largest_memory(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def read(folder):
    """Bytes and seconds of reading all weights."""
    start, count, buffer = time.monotonic(), 0, bytearray(PIECE)
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while length := file.readinto(buffer):
                count += length
    return count, time.monotonic() - start


def measure(folder, source, flags, is_cold):
    """Delivered bytes per second, CPU seconds of the daemon per GB, and its memory."""
    others = [flag for flag in flags if isinstance(flag, pathlib.Path)]
    with served(folder / source, *flags) as (point, pid):
        for each in [folder / source, *others]:
            cold(each) if is_cold else read(each)
        before = cpu_seconds(pid)
        count, seconds = read(point)
        return count / seconds, (cpu_seconds(pid) - before) / count * 1e9, largest_memory(pid)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(0)
    print("| kind | | ratio | CPU seconds per GB | of the ready copy | memory |\n|---|---|---|---|---|---|")
    for kind, (source, *flags) in sources(args.folder, args.layers).items():
        if args.kinds and kind not in args.kinds:
            continue
        for state in ("cold", "hot"):
            rounds = []
            for _ in range(args.rounds):
                ready, theirs, _ = measure(args.folder, "ready", (), state == "cold")
                own, cpu, memory = measure(args.folder, source, flags, state == "cold")
                rounds.append((own / ready, cpu, theirs, memory))
            ratio, cpu, theirs, memory = map(statistics.median, zip(*rounds))
            print(f"| {kind} | {state} | {ratio:.2f} | {cpu:.2f} | {theirs:.2f} | {memory / (1 << 20):.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
