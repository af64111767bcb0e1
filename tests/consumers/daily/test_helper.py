"""The Python helper as a user calls it: keywords, a home directory, and refusals in the program's own words."""
import os
import subprocess
import sys

import pytest

from mounts import BINARY
from processes import ROOT

EXAMPLE = ROOT / "examples" / "torchtitan-llama3"


@pytest.fixture
def run(tmp_path):
    """Runs a script with the helper, in a home directory that has the example's folders."""
    for name, folder in [("step", "checkpoint/step-10"), ("assets", "hf_assets")]:
        (tmp_path / name).symlink_to(EXAMPLE / folder)
    path = f"{BINARY.parent}:/usr/bin:/bin"
    environment = os.environ | {"HOME": str(tmp_path), "PATH": path, "PYTHONPATH": str(ROOT / "python")}

    def run(script):
        command = [sys.executable, "-c", "import ckptfs\n" + script]
        done = subprocess.run(command, env=environment, cwd=tmp_path, text=True, capture_output=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    return run


def test_keywords_are_options_and_a_tilde_is_the_home(run):
    script = """
with ckptfs.mount("~/step", config_from="~/assets", dtype="bf16", stats=True, mapping=None, as_="npy") as path:
    print(sorted(entry.name for entry in path.iterdir()))
with ckptfs.mount("~/step", "--config-from", "~/assets", tied=False) as path:
    print((path / "model.safetensors").exists(), path.is_mount())
print(path.exists())
"""
    code, out, error = run(script)
    assert code == 0, error
    assert out.splitlines()[1:] == ["True True", "False"] and "model" in out.splitlines()[0]


def test_a_refusal_is_an_exception_with_the_programs_own_line(run):
    code, out, error = run("try:\n    with ckptfs.mount('nowhere'): pass\nexcept ckptfs.Error as error: print(error)")
    assert code == 0 and error == "", error
    assert out.count("\n") == 1 and "nowhere: " in out and "ckptfs: " not in out, out
