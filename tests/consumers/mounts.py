"""The binary under test: mount with it, or see it refuse."""
import contextlib
import os
import pathlib
import subprocess
import tempfile
import time

from processes import ROOT

BINARY = pathlib.Path(os.environ.get("CKPTFS_BINARY", ROOT / "target" / "release" / "ckptfs"))


@contextlib.contextmanager
def mounted(source, *args):
    """Yields the mount point of `ckptfs mount source --daemon args`; whatever happens inside, it is unmounted."""
    with tempfile.TemporaryDirectory(prefix="ckptfs-") as folder:
        point = pathlib.Path(folder)
        subprocess.run([BINARY, "mount", source, point, "--daemon", *map(str, args)], check=True, timeout=60, stdout=subprocess.DEVNULL)
        try:
            yield point
        finally:
            subprocess.run([BINARY, "umount", point], check=True, timeout=60)
            deadline = time.monotonic() + 10
            while point.is_mount():
                assert time.monotonic() < deadline, f"{point} is still mounted 10 s after umount"
                time.sleep(0.02)


def refusal(source, *args):
    """The one line with which a mount is refused, within a second and without a trace."""
    with tempfile.TemporaryDirectory(prefix="ckptfs-") as folder:
        start = time.monotonic()
        done = subprocess.run(
            [BINARY, "mount", source, folder, "--daemon", *map(str, args)], capture_output=True, text=True, timeout=60
        )
        seconds = time.monotonic() - start
        if os.path.ismount(folder):
            subprocess.run([BINARY, "umount", folder], check=True, timeout=60)
            raise AssertionError(f"{source} was mounted")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    assert seconds < 1, f"refused after {seconds:.2f} s"
    return done.stderr
