"""A mount for as long as a block runs."""
import contextlib
import itertools
import pathlib
import subprocess
import sys
import sysconfig
import tempfile

from ._error import Error
from ._words import expanded, words

PROGRAM = pathlib.Path(sysconfig.get_path("scripts")) / "ckptfs"


@contextlib.contextmanager
def mount(source, *options, **keywords):
    """Yields the directory.

    Keywords are the options of `ckptfs mount`: `mount("~/run/step-10", dtype="bf16", config_from="~/hf", allow_other=True)`;
    `as_` stands for `--as`, a list repeats an option. Words such as "--dtype", "bf16" do too. `~` is the home directory.
    """
    with tempfile.TemporaryDirectory(prefix="ckptfs-") as point:
        _run("mount", "--daemon", *map(expanded, options), *words(keywords), "--", expanded(source), point)
        try:
            yield pathlib.Path(point)
        finally:
            _run("umount", "--lazy", "--", point)


def _run(*words):
    """Runs the program. Its warnings go to standard error, its refusal into an exception."""
    program = PROGRAM if PROGRAM.exists() else "ckptfs"
    try:
        done = subprocess.run([program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    except FileNotFoundError:
        raise Error("the program ckptfs is not in PATH; install it with: pip install ckptfs") from None
    if done.returncode == 0:
        sys.stderr.write(done.stderr)
        return
    warnings, refusal = _refusal(done.stderr.splitlines() or [f"ckptfs ended with status {done.returncode}"])
    sys.stderr.writelines(f"{warning}\n" for warning in warnings)
    raise Error(refusal)


def _refusal(lines):
    """The lines before the refusal, and the refusal. Hints for a command line follow wrong usage after an empty line."""
    at = next((i for i, line in enumerate(lines) if line.startswith("error: ")), len(lines) - 1)
    said = itertools.takewhile(str.strip, lines[at:])
    return lines[:at], " ".join(map(str.strip, said)).removeprefix("ckptfs: ").removeprefix("error: ")
