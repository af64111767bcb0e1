"""safetensors and transformers over a mount and over a plain copy, interleaved, cold, a process for each.

    loading.py PLAIN [SOURCE [MOUNT OPTIONS ...]]

PLAIN is a ready Hugging Face folder, SOURCE what is mounted; without one, PLAIN's tensors under other names are, in a temporary folder.
Prints medians of three and their ratios; the mount's seconds are among its own.
"""
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from first_forward import cold  # noqa: E402
from mounts import mounted  # noqa: E402

ROUNDS = 3
LOAD_FILE = """
from safetensors.torch import load_file
total = sum(touch(t) for f in files for t in load_file(f).values())"""
LOADERS = {
    "load_file": LOAD_FILE,
    "safe_open, tensor by tensor in name order": """
from safetensors import safe_open
total = 0
for f in files:
    with safe_open(f, "pt") as shard:
        for name in sorted(shard.keys()):
            total += touch(shard.get_tensor(name))""",
    "time to first tensor": """
from safetensors import safe_open
with safe_open(files[0], "pt") as shard:
    total = touch(shard.get_tensor(sorted(shard.keys())[0]))""",
    "from_pretrained, every page": """
model = transformers.AutoModelForCausalLM.from_pretrained(folder)
total = sum(touch(p.detach()) for p in model.parameters())""",
    "load_file by two processes at once": LOAD_FILE,
}
FRAME = """
import glob, sys, time, torch, transformers, safetensors.torch
def touch(tensor):
    return int(tensor.view(torch.uint8).flatten()[::4096].sum())
folder = sys.argv[1]
files = sorted(glob.glob(folder + "/*.safetensors"))
print("ready", flush=True)
sys.stdin.readline()
{}
print(total)
"""


def seconds(loader, folder):
    """From the word to start, which comes after the imports, until the last process is done; and what they found."""
    command = [sys.executable, "-c", FRAME.format(LOADERS[loader]), folder]
    count = 2 if "two processes" in loader else 1
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    found = {process.stdout.readline() for process in processes}
    took = time.monotonic() - start
    for process in processes:
        process.communicate()
    return took, found


def renamed(plain, folder):
    """As torch.compile leaves the names of a model that it wraps."""
    from safetensors.torch import load_file, save_file

    for file in plain.glob("*.safetensors"):
        save_file({f"_orig_mod.{name}": tensor for name, tensor in load_file(file).items()}, folder / file.name, {"format": "pt"})
    (folder / "config.json").write_bytes((plain / "config.json").read_bytes())


def measure(loader, plain, source, options):
    cold(plain)
    cold(source)
    expected = seconds(loader, plain)
    start = time.monotonic()
    with mounted(source, *options) as point:
        mounting = time.monotonic() - start
        found = seconds(loader, point)
    assert found[1] == expected[1], f"{loader}: other bytes"
    return expected[0], found[0] + mounting


def compare(plain, source, *options):
    print("| cold | plain s | mounted s | ratio |\n|---|---|---|---|")
    for loader in LOADERS:
        times = [measure(loader, plain, source, options) for _ in range(ROUNDS)]
        a, b = map(statistics.median, zip(*times))
        print(f"| {loader} | {a:.2f} | {b:.2f} | {a / b:.2f} |", flush=True)


def main(plain, source=None, *options):
    if source:
        return compare(plain, pathlib.Path(source), *options)
    with tempfile.TemporaryDirectory(dir=plain.parent) as folder:
        renamed(plain, pathlib.Path(folder))
        compare(plain, pathlib.Path(folder))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve(), *sys.argv[2:])
