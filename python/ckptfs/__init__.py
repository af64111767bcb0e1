"""`with ckptfs.mount(checkpoint) as path:` a training checkpoint as a Hugging Face directory."""
import contextlib
import os
import pathlib
import subprocess
import sys
import sysconfig
import tempfile

PROGRAM = pathlib.Path(sysconfig.get_path("scripts")) / "ckptfs"


class Error(RuntimeError):
    """What ckptfs refused, in its own words."""


@contextlib.contextmanager
def mount(source, *options, **flags):
    """Yields the directory.

    Keywords are the options of `ckptfs mount`: `mount("~/run/step-10", dtype="bf16", config_from="~/hf", allow_other=True)`;
    `as_` stands for `--as`. Words such as "--dtype", "bf16" do too. `~` is the home directory.
    """
    with tempfile.TemporaryDirectory(prefix="ckptfs-") as point:
        words = [_expanded(word) for word in [*options, *_words(flags)]]
        _run("mount", "--daemon", *words, "--", _expanded(source), point)
        try:
            yield pathlib.Path(point)
        finally:
            _run("umount", "--lazy", "--", point)


def _words(flags):
    """Keywords as words of the command line; None and False leave an option out."""
    for name, value in flags.items():
        option = "--" + name.rstrip("_").replace("_", "-")
        if value is True and name != "tied":
            yield option
        elif value is not None and (value is not False or name == "tied"):
            yield f"{option}={_expanded(str(value).lower() if name == 'tied' else value)}"


def _expanded(word):
    return os.path.expanduser(os.fspath(word) if isinstance(word, os.PathLike) else str(word))


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
    *warnings, line = done.stderr.splitlines() or [f"ckptfs ended with status {done.returncode}"]
    sys.stderr.writelines(f"{warning}\n" for warning in warnings)
    raise Error(line.removeprefix("ckptfs: "))
