"""Trainers start from mounts of Hugging Face folders, and a mount of such a mount is the folder again."""
import pathlib

import mounts
import processes
import pytest

PARTS = "systems/"
NAMES = {
    "torchtitan": ["llama", "mistral", "qwen3", "qwen3_moe", "deepseek_v3", "gpt_oss", "llama4_text"],
    "torchtitan-0.2": ["llama", "qwen3", "qwen3_moe", "deepseek_v3", "gpt_oss", "llama4_text"],
    "lingua": ["llama", "mistral"],
    "meta": ["llama", "mistral", "mixtral"],
    "torchtune": ["llama", "gemma", "gemma2", "qwen2", "qwen3", "phi3"],
    "hf": ["llama", "mixtral", "qwen3_moe", "deepseek_v3", "phi3"],
}


def run(script, *args, environment="base"):
    folder = str(processes.CONSUMERS / "systems")
    path = f"{processes.CONSUMERS}:{folder}"
    processes.run(PARTS + script, *args, environment=environment, cwd=folder, PYTHONPATH=path)


@pytest.mark.parametrize("environment, names", [("base", "torchtitan"), ("titan-old", "torchtitan-0.2")])
def test_torchtitan_starts_with_the_parameters_of_its_own_adapter(subtests, tmp_path, environment, names):
    run("start_titan.py", "make", tmp_path, environment=environment)
    for case in sorted(path.name for path in tmp_path.iterdir()):
        with subtests.test(msg=case), mounts.mounted(tmp_path / case, "--as", "dcp", "--names", names, "--chunk-size", "4KiB") as mount:
            run("start_titan.py", "load", tmp_path, case, mount, environment=environment)


def test_dcp_loads_a_mount_in_every_world(subtests, tmp_path):
    run("start_dcp.py", "make", tmp_path / "hf")
    with mounts.mounted(tmp_path / "hf", "--as", "dcp", "--names", "hf", "--chunk-size", "16KiB", "--max-shard-size", "200KB") as mount:
        for shape in ("1", "2", "4", "2x2"):
            with subtests.test(msg=shape):
                run("start_dcp.py", "load", tmp_path / "hf", mount, shape)
        with subtests.test(msg="dcp_to_torch_save"):
            run("start_dcp.py", "save", mount, tmp_path / "saved.pt")
            with mounts.mounted(tmp_path / "saved.pt", "--config-from", tmp_path / "hf") as again:
                equal(tmp_path / "hf", again)


@pytest.mark.parametrize("size", ["5GB", "100KB"])
def test_transformers_loads_pytorch_model_bin(tmp_path, size):
    run("start_dcp.py", "make", tmp_path / "hf")
    with mounts.mounted(tmp_path / "hf", "--as", "torch", "--max-shard-size", size) as mount:
        assert (mount / "pytorch_model.bin.index.json").exists() == (size != "5GB")
        run("start_dcp.py", "bin", tmp_path / "hf", mount)


def test_torchtune_and_lingua_start_from_mounts(subtests, tmp_path):
    run("start_families.py", tmp_path)
    hf = tmp_path / "llama"
    with subtests.test(msg="torchtune"), mounts.mounted(hf, "--as", "torch", "--names", "torchtune") as tune, mounts.mounted(hf, "--as", "meta") as meta:
        run("start_torchtune.py", hf, tune, meta, environment="torchtune")
    with subtests.test(msg="lingua"), mounts.mounted(hf, "--as", "dcp", "--names", "lingua") as mount:
        run("start_lingua.py", hf, mount)


def test_a_mount_of_a_mount_is_the_folder_again(subtests, tmp_path):
    run("start_families.py", tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    assert {family for families in NAMES.values() for family in families} <= made
    for names, families in NAMES.items():
        for family in families:
            for layout in ("dcp", "torch"):
                with subtests.test(msg=f"{family} as {layout} with {names}"), mounts.mounted(tmp_path / family, "--as", layout, "--names", names) as there:
                    with mounts.mounted(there) as back:
                        equal(tmp_path / family, back)


def equal(folder: pathlib.Path, other: pathlib.Path):
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    assert sorted(path.name for path in other.iterdir()) == files
    for name in files:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
