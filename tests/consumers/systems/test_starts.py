"""Trainers start from mounts of Hugging Face folders, and a mount of such a mount is the folder again."""
import json
import pathlib
import struct
import zipfile

import mounts
import processes
import pytest
import tensors

PARTS = "systems/"
NAMES = {
    "torchtitan": ["llama", "mistral", "qwen3", "qwen3_moe", "qwen3_5", "qwen3_5_moe", "deepseek_v3", "gpt_oss"],
    "torchtitan-0.2": ["llama", "qwen3", "qwen3_moe", "deepseek_v3", "gpt_oss", "llama4_text", "llama4"],
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


def test_ranks_that_shard_the_first_dimension_read_the_source_once(tmp_path):
    """What four ranks that load together have the daemon read, next to the bytes of the model."""
    run("start_dcp.py", "large", tmp_path / "hf")
    with mounts.mounted(tmp_path / "hf", "--as", "dcp", "--names", "hf") as mount:
        before = mounts.bytes_read(mount)
        run("start_dcp.py", "shards", tmp_path / "hf", mount, "4")
        read = mounts.bytes_read(mount) - before
    assert read <= 1.05 * (tmp_path / "hf/model.safetensors").stat().st_size, read


def test_torch_reads_a_member_of_more_than_4_gib(tmp_path):
    """A sparse tensor of 5 GB with a few numbers, by torch.load, which maps it, and by Python's zipfile, which lists it."""
    rows, columns = 1 << 16, 40_000
    header = json.dumps({"w.weight": {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [0, 2 * rows * columns]}}).encode()
    start = 8 + len(header)
    places = [(0, 0), (rows // 2, 7), (rows - 1, columns - 1)]
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(start + 2 * rows * columns)
        for row, column in places:
            file.seek(start + 2 * (row * columns + column))
            file.write(struct.pack("<H", 0x3FC0))  # 1.5
    (tmp_path / "config.json").write_text('{"model_type": "free"}')
    with mounts.mounted(tmp_path, "--as", "torch", "--max-shard-size", "10GB") as mount:
        with zipfile.ZipFile(mount / "pytorch_model.bin") as archive:
            assert archive.getinfo("archive/data/0").file_size == 2 * rows * columns > 1 << 32
        run("start_dcp.py", "sparse", mount / "pytorch_model.bin", *(f"{row},{column}" for row, column in places))


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
                        (equal_but_for_the_tower if family == "llama4" else equal)(tmp_path / family, back)


def equal_but_for_the_tower(folder, other):
    """torchtitan trains Llama 4 without its vision tower."""
    wanted, found = (tensors.parse((of / "model.safetensors").read_bytes())[1] for of in (folder, other))
    tower = {name for name in wanted if name.startswith(("vision_model.", "multi_modal_projector."))}
    assert tower and wanted.keys() - tower == found.keys()
    tensors.assert_equal_bitwise(found, {name: wanted[name] for name in found})
    assert (folder / "config.json").read_bytes() == (other / "config.json").read_bytes()


def equal(folder: pathlib.Path, other: pathlib.Path):
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    assert sorted(path.name for path in other.iterdir()) == files
    for name in files:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
