"""`pip install .` in a fresh environment: the program, and the helper through which transformers loads a checkpoint."""
import os
import subprocess

from processes import ROOT

LOAD = """
import ckptfs, pathlib, sys, torch, transformers
with ckptfs.mount(sys.argv[1], config_from=sys.argv[2], dtype="bf16") as path:
    assert isinstance(path, pathlib.Path) and path.is_mount()
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
assert not path.exists()
print(model.dtype, sum(parameter.numel() for parameter in model.parameters()))
try:
    with ckptfs.mount(sys.argv[1], "--config-from", sys.argv[2]) as path:
        raise KeyError("inside")
except KeyError:
    assert not path.exists()
"""


def test_the_program_is_installed(fresh):
    version = subprocess.check_output([fresh / "ckptfs", "--version"], text=True)
    installed = "import importlib.metadata; print('ckptfs', importlib.metadata.version('ckptfs'))"
    installed = subprocess.check_output([fresh / "python", "-c", installed], text=True)
    assert version.split()[:2] == installed.split(), version  # commit and features follow


def test_transformers_loads_through_the_helper(fresh):
    example = ROOT / "examples" / "torchtitan-llama3"
    command = [fresh / "python", "-c", LOAD, example / "checkpoint" / "step-10", example / "hf_assets"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}  # not the PATH of another ckptfs
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0].startswith("torch.bfloat16 119104")


def test_a_refusal_is_an_exception(fresh, tmp_path):
    script = "import ckptfs, sys\nwith ckptfs.mount(sys.argv[1]): pass"
    done = subprocess.run([fresh / "python", "-c", script, tmp_path], text=True, capture_output=True, timeout=60)
    assert done.returncode == 1 and f"\nckptfs.Error: {tmp_path}: " in done.stderr


def test_wrong_usage_is_an_exception_that_says_what_is_wrong(fresh, tmp_path):
    script = "import ckptfs, os, sys\nwith ckptfs.mount(os.fsencode(sys.argv[1]), nosuch=1): pass"
    done = subprocess.run([fresh / "python", "-c", script, tmp_path], text=True, capture_output=True, timeout=60)
    assert done.returncode == 1 and "\nckptfs.Error: unexpected argument '--nosuch' found" in done.stderr
