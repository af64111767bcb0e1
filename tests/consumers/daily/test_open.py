"""`ckptfs.open`: tensors of checkpoints without a mount, through the installed package."""
import json
import os
import subprocess

import pytest
import torch
import torch.distributed.checkpoint

import processes
import tiny
from mounts import BINARY
from processes import CONSUMERS, ROOT


DATA = ROOT / "tests" / "data"
EXAMPLE = ROOT / "examples" / "torchtitan-llama3"
# Systems of the repository's own checkpoints: the source, and the folder of config.json where it is not beside.
CARRIED = {
    "torchtitan": (EXAMPLE / "checkpoint" / "step-10", EXAMPLE / "hf_assets"),
    "dcp": (DATA / "dcp-uneven-w3" / "source", DATA / "dcp-uneven-w3" / "config"),
    "shards of .bin": (DATA / "hf-bin-sharded" / "source", None),
    "legacy .bin": (DATA / "legacy-bin" / "source", None),
    "meta": (DATA / "meta-mp2" / "source", None),
    "verl": (DATA / "verl-fsdp2-w2" / "source", None),
}


def run(fresh, script, *arguments, **variables):
    """What a script of the installed package prints."""
    environment = os.environ | {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"} | variables
    command = [fresh / "python", CONSUMERS / "daily" / script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Four more systems: a .pt, safetensors, Lightning's .ckpt and torchtune's shards, of one tiny model."""
    folder = tmp_path_factory.mktemp("written")
    model = tiny.model()
    model.save_pretrained(folder / "safetensors", max_shard_size="100KB")
    config = folder / "safetensors"
    torch.save(model.state_dict(), folder / "model.pt")
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1, "global_step": 3, "pytorch-lightning_version": "2.5.0"}, folder / "last.ckpt")
    (folder / "shards").mkdir()
    names = list(model.state_dict())
    for number, some in enumerate([names[: len(names) // 2], names[len(names) // 2 :]], 1):
        part = {name: model.state_dict()[name].clone() for name in some}
        torch.save(part, folder / "shards" / f"pytorch_model-{number:05}-of-00002.bin")
    index = {"metadata": {}, "weight_map": {name: f"pytorch_model-{1 + (place >= len(names) // 2):05}-of-00002.bin" for place, name in enumerate(names)}}
    (folder / "shards" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return {
        ".pt": (folder / "model.pt", config), "safetensors": (config, None), "lightning": (folder / "last.ckpt", config),
        "shards without config": (folder / "shards", config),
    }


def test_ten_systems_have_the_tensors_of_their_export(fresh, written, tmp_path):
    systems = CARRIED | written
    assert len(systems) == 10
    for number, (source, config) in enumerate(systems.values()):
        options = ["--config-from", config] if config else []
        subprocess.run([BINARY, "export", source, tmp_path / str(number), *options], check=True, timeout=120, stdout=subprocess.DEVNULL)
        printed = run(fresh, "open_and_compare.py", source, tmp_path / str(number), *options)
        assert printed.startswith("equal "), printed


def test_indices_read_what_numpy_reads(fresh):
    source, config = CARRIED["torchtitan"]
    assert run(fresh, "open_and_index.py", source, config) == "as numpy\n"


def test_a_row_of_a_large_tensor_is_read_alone(fresh, tmp_path):
    printed = run(fresh, "open_a_row.py", tmp_path)
    calls, microseconds = printed.split()
    print(f"one row of a 1 GiB tensor: {microseconds} microseconds")
    assert int(calls) == 1


def test_refusals_are_exceptions_of_one_line(fresh):
    script = """
import ckptfs
for words in [("nowhere",), ("/",), ("/usr/lib",)]:
    try:
        ckptfs.open(*words)
    except ckptfs.Error as error:
        print(len(str(error).splitlines()), str(error).startswith("ckptfs: "))
try:
    ckptfs.open("nowhere", dtyp="bf16")
except ckptfs.Error as error:
    print("--dtyp" in str(error))
"""
    done = subprocess.run([fresh / "python", "-c", script], text=True, capture_output=True, timeout=60)
    assert done.stdout.split("\n") == ["1 False"] * 3 + ["True", ""], (done.stdout, done.stderr)


def test_transformers_takes_the_state_dict(fresh):
    source, config = CARRIED["torchtitan"]
    assert run(fresh, "open_in_transformers.py", source, config).startswith("119104 ")


def test_vllm_loads_without_a_mount(fresh, tmp_path):
    """By the loader that the package registers, vLLM generates what it generates from the real directory."""
    model = tiny.model(num_attention_heads=2, num_key_value_heads=1, dtype="bfloat16")
    model.save_pretrained(tmp_path / "real")
    torch.distributed.checkpoint.save(model.state_dict(), checkpoint_id=tmp_path / "dcp")
    package = subprocess.check_output([fresh / "python", "-c", "import ckptfs; print(ckptfs.__path__[0])"], text=True).strip()
    quiet = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    printed = processes.run("daily/open_in_vllm.py", package, tmp_path / "real", tmp_path / "dcp", environment="vllm", **quiet)
    shown, real = [line.split(" ", 1)[1] for line in printed[0].splitlines() if line.startswith("tokens ")]
    assert shown == real
