"""`with ckptfs.mount(checkpoint) as path:` a training checkpoint as a Hugging Face directory."""
import contextlib
import pathlib
import subprocess
import sysconfig
import tempfile

PROGRAM = pathlib.Path(sysconfig.get_path("scripts")) / "ckptfs"


@contextlib.contextmanager
def mount(source, *options):
    """Yields the directory; `options` are those of `ckptfs mount`, such as "--dtype", "bf16"."""
    program = PROGRAM if PROGRAM.exists() else "ckptfs"
    with tempfile.TemporaryDirectory(prefix="ckptfs-") as point:
        command = [program, "mount", "--daemon", *map(str, options), "--", source, point]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        try:
            yield pathlib.Path(point)
        finally:
            subprocess.run([program, "umount", "--lazy", point], check=True)
