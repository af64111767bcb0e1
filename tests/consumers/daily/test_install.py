"""`pip install .` in a fresh environment: the program, and the helper through which transformers loads a checkpoint."""
import os
import subprocess
import sys

import pytest

from mounts import BINARY
from processes import ROOT, python

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


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The scripts of an environment that sees base's packages, into which the project was installed from its folder."""
    if os.environ.get("CKPTFS_OFFLINE"):
        pytest.skip("NOT TESTED: pip install . needs the package index")
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    site = "import sysconfig; print(sysconfig.get_path('purelib'))"
    base, own = (subprocess.check_output([of, "-c", site], text=True).strip() for of in (python(), folder / "bin/python"))
    with open(f"{own}/zz-base.pth", "w") as link:
        link.write(base + "\n")
    # What the binary under test was built of need not be built again.
    environment = os.environ | {"CARGO_TARGET_DIR": str(BINARY.parents[1])}
    install = [folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", ROOT]
    subprocess.run(install, check=True, env=environment, timeout=1200)
    return folder / "bin"


def test_the_program_is_installed(fresh):
    version = subprocess.check_output([fresh / "ckptfs", "--version"], text=True)
    installed = "import importlib.metadata; print('ckptfs', importlib.metadata.version('ckptfs'))"
    assert subprocess.check_output([fresh / "python", "-c", installed], text=True) == version


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
