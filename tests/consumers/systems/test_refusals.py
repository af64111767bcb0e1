"""What is broken, incomplete or hostile is refused: one line, under a second, nothing executed."""
import os
import pickle
import shutil
import subprocess

import pytest
import torch
import torch.distributed.checkpoint as dcp

import meta_llama
import pytorch_bin
import tiny
from mounts import BINARY, mounted, refusal


class Touch:
    """Unpickled by Python, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def state():
    return tiny.model().state_dict()


@pytest.fixture
def config(tmp_path):
    return tiny.write_config(tmp_path / "config")


@pytest.fixture
def checkpoint(state, tmp_path):
    """A sound DCP checkpoint of two files; each test breaks it its own way."""
    dcp.save(state, storage_writer=dcp.FileSystemWriter(tmp_path / "dcp", thread_count=2))
    assert len(list((tmp_path / "dcp").glob("*.distcp"))) == 2
    return tmp_path / "dcp"


def metadata(checkpoint):
    return dcp.FileSystemReader(checkpoint).read_metadata()


def rewrite(checkpoint, read):
    (checkpoint / ".metadata").write_bytes(pickle.dumps(read))


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_truncated_distcp_is_refused(checkpoint, config, kept):
    file = checkpoint / "__0_1.distcp"
    os.truncate(file, kept % file.stat().st_size)
    assert "__0_1.distcp" in refusal(checkpoint, "--config-from", config)


def test_a_missing_rank_file_is_refused(checkpoint, config):
    (checkpoint / "__0_0.distcp").unlink()
    assert "__0_0.distcp" in refusal(checkpoint, "--config-from", config)


def test_a_missing_metadata_is_refused(checkpoint, config):
    (checkpoint / ".metadata").unlink()
    assert ".metadata" in refusal(checkpoint, "--config-from", config)


def test_a_truncated_metadata_is_refused(checkpoint, config):
    os.truncate(checkpoint / ".metadata", 500)
    assert ".metadata" in refusal(checkpoint, "--config-from", config)


def test_a_missing_config_is_refused_and_the_option_named(checkpoint):
    assert "--config-from" in refusal(checkpoint)


def test_a_config_of_another_shape_is_refused(checkpoint, tmp_path):
    other = tiny.write_config(tmp_path / "other", intermediate_size=176)
    assert "mlp" in refusal(checkpoint, "--config-from", other)


def test_a_tensor_that_config_promises_and_the_source_lacks_is_refused(state, config, tmp_path):
    less = {name: tensor for name, tensor in state.items() if name != "model.layers.1.mlp.up_proj.weight"}
    dcp.save(less, checkpoint_id=tmp_path / "less")
    assert "model.layers.1.mlp.up_proj.weight" in refusal(tmp_path / "less", "--config-from", config)


def test_a_weight_that_nothing_explains_is_refused(state, config, tmp_path):
    more = state | {"model.layers.0.mlp.adapter.weight": torch.ones(3, 3)}
    dcp.save(more, checkpoint_id=tmp_path / "more")
    assert "model.layers.0.mlp.adapter.weight" in refusal(tmp_path / "more", "--config-from", config)


def test_metadata_that_points_outside_is_refused(checkpoint, config, tmp_path):
    shutil.move(checkpoint / "__0_1.distcp", tmp_path / "outside.distcp")
    read = metadata(checkpoint)
    for info in read.storage_data.values():
        if info.relative_path == "__0_1.distcp":
            info.relative_path = "../outside.distcp"
    rewrite(checkpoint, read)
    assert "../outside.distcp" in refusal(checkpoint, "--config-from", config)


def test_metadata_that_names_posix_system_is_refused(checkpoint, config, tmp_path):
    read = metadata(checkpoint)
    read.storage_data = Touch(tmp_path / "executed")
    rewrite(checkpoint, read)
    assert "posix.system" in refusal(checkpoint, "--config-from", config)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("where", ["alone", "beside-the-weights", "as-a-weight"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pt_that_names_posix_system_is_refused(state, config, tmp_path, where, legacy):
    payload = Touch(tmp_path / "executed")
    content = {
        "alone": payload,
        "beside-the-weights": {**state, "extra": payload},
        "as-a-weight": {**state, "model.norm.weight": payload},
    }[where]
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy)
    assert "posix.system" in refusal(tmp_path / "model.pt", "--config-from", config)
    assert not (tmp_path / "executed").exists()


def test_a_tensor_without_a_name_is_refused(tmp_path):
    torch.save(torch.ones(3, 3), tmp_path / "weights.pt")
    assert "without a name" in refusal(tmp_path / "weights.pt")


def test_an_index_of_bin_shards_that_points_outside_is_refused(state, config, tmp_path):
    pytorch_bin.write(config, state, max_shard_size="100KB")
    escape(config, "pytorch_model-00002-*", "pytorch_model.bin.index.json")


def test_an_index_of_safetensors_that_points_outside_is_refused(tmp_path):
    tiny.model().save_pretrained(tmp_path / "source", max_shard_size="100KB")
    escape(tmp_path / "source", "model-00002-*", "model.safetensors.index.json")


def escape(folder, pattern, index):
    """Moves a shard out of the folder and lets the index say so."""
    shard = next(folder.glob(pattern))
    shard.rename(folder.parent / shard.name)
    text = (folder / index).read_text()
    (folder / index).write_text(text.replace(shard.name, f"../{shard.name}"))
    assert f"../{shard.name}" in refusal(folder)


def test_a_shard_that_the_index_names_and_nobody_wrote_is_refused(tmp_path):
    tiny.model().save_pretrained(tmp_path / "source", max_shard_size="100KB")
    shard = next((tmp_path / "source").glob("model-00002-*"))
    shard.unlink()
    assert shard.name in refusal(tmp_path / "source")


def test_a_missing_model_parallel_file_is_refused(tmp_path):
    meta_llama.write(tmp_path / "source", 2)
    (tmp_path / "source" / "consolidated.01.pth").unlink()
    refusal(tmp_path / "source")


def test_an_lfs_pointer_is_called_by_its_name(config):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 42\n"
    (config / "pytorch_model.bin").write_text(pointer)
    assert "LFS" in refusal(config)


def test_a_truncated_index_is_refused(tmp_path):
    tiny.model().save_pretrained(tmp_path / "source", max_shard_size="100KB")
    os.truncate(tmp_path / "source" / "model.safetensors.index.json", 300)
    assert "model.safetensors.index.json" in refusal(tmp_path / "source")


def test_an_empty_directory_is_refused(tmp_path):
    assert str(tmp_path) in refusal(tmp_path)


def test_an_occupied_mount_point_is_refused(checkpoint, config):
    """Over a mount of its own too: nothing is stacked."""
    with mounted(checkpoint, "--config-from", config) as point:
        done = subprocess.run(
            [BINARY, "mount", checkpoint, point, "--daemon", "--config-from", config], capture_output=True, text=True
        )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1 and "umount" in done.stderr
