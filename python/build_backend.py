"""Builds the wheel: the command by cargo, then the extension by maturin, which packs both.

CKPTFS_COMMAND=FILE packs this program instead of building one, for builds that choose a linker or a target of their own.
"""
import os
import pathlib
import shutil
import subprocess

import maturin
from maturin import *  # noqa: F403  the hooks that need no command

# As in pyproject.toml.
SCRIPTS = pathlib.Path("target/wheel/scripts")


def build_wheel(*arguments, **options):
    _place_command()
    return maturin.build_wheel(*arguments, **options)


def build_editable(*arguments, **options):
    _place_command()
    return maturin.build_editable(*arguments, **options)


def _place_command():
    command = os.environ.get("CKPTFS_COMMAND")
    if command is None:
        subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "ckptfs"], check=True)
        command = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "ckptfs")
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    shutil.copy2(command, SCRIPTS / "ckptfs")
