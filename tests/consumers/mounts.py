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
        subprocess.run([BINARY, "mount", source, point, "--daemon", *map(str, args)], check=True, timeout=600, stdout=subprocess.DEVNULL)
        try:
            yield point
        finally:
            subprocess.run([BINARY, "umount", point], check=True, timeout=600)
            deadline = time.monotonic() + 120
            while point.is_mount():
                assert time.monotonic() < deadline, f"{point} is still mounted 120 s after umount"
                time.sleep(0.02)


def bytes_read(point):
    """Bytes that the daemon of a mount has asked the kernel for with reads, of a disk or of the page cache."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if str(point).encode() in words and b"--daemon" in words:
                counts = dict(line.split(": ") for line in (process / "io").read_text().splitlines())
                return int(counts["rchar"])
    raise AssertionError(f"no daemon serves {point}")


def refusal(source, *args):
    """The one line with which a mount is refused, without a trace."""
    with tempfile.TemporaryDirectory(prefix="ckptfs-") as folder:
        done = subprocess.run(
            [BINARY, "mount", source, folder, "--daemon", *map(str, args)], capture_output=True, text=True, timeout=600
        )
        if os.path.ismount(folder):
            subprocess.run([BINARY, "umount", folder], check=True, timeout=600)
            raise AssertionError(f"{source} was mounted")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    return done.stderr
