"""The mount is a plain directory to everything that knows only files."""
import os
import stat
import subprocess

import tiny
from mounts import mounted



def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_cp_r_makes_the_directory_that_save_pretrained_wrote(pair, tmp_path):
    output("cp", "-r", pair.shown, tmp_path / "copy")
    output("diff", "-r", tmp_path / "copy", pair.real)


def test_cp_a_and_tar_make_it_too(pair, tmp_path):
    output("cp", "-a", pair.shown, tmp_path / "copy")
    output("diff", "-r", tmp_path / "copy", pair.real)
    output("tar", "-C", pair.shown, "-cf", tmp_path / "all.tar", ".")
    (tmp_path / "tar").mkdir()
    output("tar", "-C", tmp_path / "tar", "-xf", tmp_path / "all.tar")
    output("diff", "-r", tmp_path / "tar", pair.real)


def test_sha256sum_of_every_file_equals_the_real_files(pair):
    names = sorted(os.listdir(pair.real))
    assert sorted(os.listdir(pair.shown)) == names
    sums = [[line.split()[0] for line in output("sha256sum", *(folder / n for n in names)).splitlines()] for folder in (pair.shown, pair.real)]
    assert sums[0] == sums[1]


def test_find_and_ls_see_regular_files_of_the_right_size(pair):
    shown, real = (output("find", folder, "-type", "f", "-printf", "%P %s\n").split("\n") for folder in (pair.shown, pair.real))
    assert sorted(shown) == sorted(real)
    assert output("find", pair.shown, "-not", "-type", "f", "-not", "-type", "d") == ""
    listing = output("ls", "-lR", pair.shown)
    assert all(name in listing for name in os.listdir(pair.real))


def test_du_counts_what_the_files_hold(pair):
    size = sum(path.stat().st_size for path in pair.real.iterdir())
    counted = int(output("du", "-sb", pair.shown).split()[0]) - pair.shown.stat().st_size
    assert counted == size
    blocks = int(output("du", "-s", "--block-size=1", pair.shown).split()[0])
    assert abs(blocks - size) < 64 * 1024


def test_files_are_read_only(pair):
    for path in pair.shown.iterdir():
        assert path.stat().st_mode & ~0o644 == stat.S_IFREG
        assert path.stat().st_nlink == 1
    for command in (["touch", pair.shown / "new"], ["rm", "-f", pair.shown / "config.json"], ["mkdir", pair.shown / "folder"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode and "Read-only file system" in done.stderr


def test_files_are_as_private_as_their_source(tmp_path):
    """safetensors itself writes with mode 0600: the mount must not widen that."""
    tiny.model().save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").chmod(0o600)
    (tmp_path / "source" / "config.json").chmod(0o644)
    with mounted(tmp_path / "source") as point:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in point.iterdir()}
    assert (modes["model.safetensors"], modes["config.json"]) == (0o600, 0o644)


def test_inode_numbers_and_times_are_stable(pair):
    first, second = ({path.name: tuple(path.stat()) for path in pair.shown.iterdir()} for _ in range(2))
    assert first == second
    assert len({path.stat().st_ino for path in pair.shown.iterdir()}) == len(first)
