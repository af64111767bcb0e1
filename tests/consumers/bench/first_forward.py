"""From a checkpoint to the first logits in bf16, 1.1 billion parameters: mounted, beside a ready copy, and after its system's converter.

    first_forward.py FOLDER [SYSTEM ...] [--rounds 3] [--converters too|no|only]

Systems: titan (DCP in f32 of two ranks), verl (FSDP in f32 of two ranks), meta (bf16). FOLDER takes 20 GB, and what is there is used
again. Needs the environments of tests/run. Every measurement is a process of its own, cold: the pages of every file in FOLDER are
dropped before it. Seconds are of the whole process, and of the mount where there is one.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from mounts import mounted  # noqa: E402
from processes import python  # noqa: E402

CONVERTERS = {
    "titan": [("convert_to_hf", "base", [HERE / "titan_to_hf.py", "titan", "converted", "ready/config.json"]),
              ("dcp_to_torch_save", "base", ["-m", "torch.distributed.checkpoint.format_utils", "dcp_to_torch", "titan", "converted/all.pt"])],
    "verl": [("model_merger", "verl", ["-m", "verl.model_merger", "merge", "--backend=fsdp", "--local_dir=verl", "--target_dir=converted"])],
    "meta": [("convert_llama_weights_to_hf", "meta", [HERE.parent / "systems" / "meta_convert.py", "meta", "converted", "1", "2", "32000"])],
}
LOAD = """
import sys, time
start = time.monotonic()
import torch, transformers
imported = time.monotonic() - start
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
with torch.no_grad():
    print(imported, model(torch.arange(16)[None]).logits.double().sum().item())
"""


def cold(folder):
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(environment, command, folder):
    """What a command prints, the seconds that it takes and the bytes of its memory."""
    start = time.monotonic()
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([python(environment), *command], cwd=folder, env=variables, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        output.seek(0)
        said = output.read()
    if status:
        raise RuntimeError(f"{command}: {said[-2000:]}")
    return said, seconds, usage.ru_maxrss * 1024


def load(at, folder):
    """Seconds, those of them after the imports, and the sum of the logits."""
    output, seconds, _ = run("base", ["-c", LOAD, at], folder)
    imported, logits = map(float, output.split()[-2:])
    return seconds, seconds - imported, logits


def load_mounted(source, options, folder):
    start = time.monotonic()
    with mounted(source, *options) as point:
        mounting = time.monotonic() - start
        seconds, after, logits = load(point, folder)
    return seconds + mounting, after + mounting, logits


def files(folder):
    return [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]


def read_time(folder):
    """Seconds of a plain cold read of all files, the best of three."""
    return min(map(read_once, [folder] * 3))


def read_once(folder):
    cold(folder)
    start, buffer = time.monotonic(), bytearray(1 << 20)
    for path in files(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.monotonic() - start


def medians(results):
    return [statistics.median(column) for column in zip(*results)]


def compare(system, args):
    folder, source = args.folder, args.folder / system
    config = ["--config-from", folder / "f32"] if system == "titan" else []
    ready, through = [], []
    for _ in range(args.rounds):
        cold(folder)
        ready.append(load(folder / "ready", folder))
        cold(folder)
        through.append(load_mounted(source, ["--dtype", "bf16", *config], folder))
    assert len({logits for *_, logits in ready + through}) == 1, "other logits"
    (whole, after, _), (mounted_whole, mounted_after, _) = medians(ready), medians(through)
    extra = max(0, read_time(source) - read_time(folder / "ready"))
    line(system, "ready copy", whole, after)
    line(system, "mounted", mounted_whole, mounted_after)
    print(f"mounted / ready {mounted_whole / whole:.2f}; reading the source's extra bytes takes {extra:.1f} s: "
          f"{mounted_whole:.1f} s of {1.15 * whole + extra:.1f}", flush=True)


def convert(system, folder):
    out = folder / "converted"
    for name, environment, command in CONVERTERS[system]:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        cold(folder)
        _, seconds, memory = run(environment, command, folder)
        line(system, f"{name}, {memory / 1e9:.1f} GB of memory, {size(out) / 1e9:.1f} GB written", seconds)
        if (out / "config.json").exists():
            cold(folder)
            line(system, "the same, then loaded", seconds + load(out, folder)[0])
    shutil.rmtree(out, ignore_errors=True)


def size(folder):
    return sum(path.stat().st_size for path in files(folder))


def line(*cells):
    shown = (f"{cell:.1f}" if isinstance(cell, float) else cell for cell in cells)
    print("|", " | ".join(shown), "|", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("systems", nargs="*", default=list(CONVERTERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--converters", choices=["too", "no", "only"], default="too")
    args = parser.parse_args()
    for system in ["ready", *args.systems]:
        if not (args.folder / system).exists():
            run("verl" if system == "verl" else "base", [HERE / "sources.py", system, args.folder], args.folder)
    line("from", "by", "seconds to the first logits", "without imports")
    print("|---|---|---|---|")
    for system in args.systems:
        if args.converters != "only":
            compare(system, args)
        if args.converters != "no":
            convert(system, args.folder)


if __name__ == "__main__":
    main()
