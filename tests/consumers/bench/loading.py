"""safetensors and transformers over a mount and over the plain folder, interleaved, cold, a process for each.

    loading.py PLAIN SOURCE [MOUNT OPTIONS ...]

PLAIN is a ready Hugging Face folder, SOURCE what is mounted. Prints medians of three and their ratios.
"""
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from first_forward import cold  # noqa: E402
from mounts import mounted  # noqa: E402

LOADERS = {
    "load_file": """
from safetensors.torch import load_file
total = sum(int(t.view(torch.uint8).flatten()[::4096].sum()) for f in files for t in load_file(f).values())""",
    "safe_open, by name": """
from safetensors import safe_open
total = 0
for f in files:
    with safe_open(f, "pt") as shard:
        for name in sorted(shard.keys()):
            total += int(shard.get_tensor(name).view(torch.uint8).flatten()[::4096].sum())""",
    "first tensor": """
from safetensors import safe_open
with safe_open(files[0], "pt") as shard:
    total = int(shard.get_tensor(sorted(shard.keys())[0]).view(torch.uint8).flatten()[::4096].sum())""",
    "from_pretrained, every page": """
import transformers
begin = time.monotonic()
model = transformers.AutoModelForCausalLM.from_pretrained(folder)
total = sum(int(p.detach().view(torch.uint8).flatten()[::4096].sum()) for p in model.parameters())""",
}
FRAME = """
import glob, sys, time, torch, safetensors.torch
folder = sys.argv[1]
files = sorted(glob.glob(folder + "/*.safetensors"))
begin = time.monotonic()
{}
print(time.monotonic() - begin, total)
"""


def seconds(loader, folder):
    done = subprocess.run([sys.executable, "-c", FRAME.format(LOADERS[loader]), folder], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.split()


def main(plain, source, *options):
    print("| cold | plain s | mounted s | ratio |\n|---|---|---|---|")
    for loader in LOADERS:
        times = ([], [])
        for _ in range(3):
            cold(plain)
            cold(source)
            expected = seconds(loader, plain)
            with mounted(source, *options) as point:
                found = seconds(loader, point)
            assert found[1] == expected[1], f"{loader}: other bytes"
            times[0].append(float(expected[0]))
            times[1].append(float(found[0]))
        a, b = map(statistics.median, times)
        print(f"| {loader} | {a:.2f} | {b:.2f} | {a / b:.2f} |")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), *sys.argv[3:])
