"""Any torch DCP checkpoint, however it was sharded and stored, shows the tensors that torch itself gathers from it."""
import json
import pathlib
import shutil
import subprocess

import pytest
import torch
from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import dcp
import mounts
import processes
import tensors
import tiny
from mounts import mounted


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The folder of a layout; all layouts of one world size are written by one world."""
    out, written = tmp_path_factory.mktemp("dcp"), set()

    def folder(name):
        world = dcp.LAYOUTS[name].world
        if world not in written:
            same = [other for other, layout in dcp.LAYOUTS.items() if layout.world == world]
            processes.run("systems/dcp.py", out, *same, world=world)
            written.add(world)
        return out / name

    return folder


def gathered(source):
    """What torch's own converter gathers: the weights, without the prefixes that wrappers leave."""
    whole = source.parent / "gathered.pt"
    dcp_to_torch_save(source, whole)
    state = torch.load(whole, weights_only=False)
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in state.get("model", state).items()}


def shown(folder, *args):
    with mounted(folder / "source", "--config-from", folder / "config", *args) as point:
        return tensors.tensors_of(point)


@pytest.mark.parametrize("name", [name for name in dcp.LAYOUTS if name not in ("hf-writer", "safetensors")])
def test_dcp_shards_equal_torchs_own_gathering(checkpoint, name):
    folder = checkpoint(name)
    tensors.assert_equal_bitwise(shown(folder), tensors.from_torch(gathered(folder / "source")))


@pytest.mark.parametrize("name", ["dim1", "uneven", "empty-shards", "tp-fsdp", "hsdp", "safetensors"])
def test_dcp_shards_equal_the_tensors_before_sharding(checkpoint, name):
    """Also for the safetensors serialisation, which torch writes and cannot read."""
    model = tiny.model(**dcp.LAYOUTS[name].shape)
    tensors.assert_equal_bitwise(shown(checkpoint(name)), tensors.from_torch(model.state_dict()))


def test_hf_writers_shards_equal_torchs_own_consolidation(checkpoint, tmp_path):
    folder = checkpoint("hf-writer")
    names = list(tiny.model().state_dict())
    consolidate_safetensors_files(str(folder / "source"), str(tmp_path), dict.fromkeys(names, 1))
    (consolidated,) = tmp_path.glob("*.safetensors")
    tensors.assert_equal_bitwise(shown(folder), tensors.parse(consolidated.read_bytes())[1])


def test_optimizer_state_is_left_unread(checkpoint, tmp_path):
    """The moments lie in the same files as the weights; with their bytes gone wrong the weights are still right."""
    folder = shutil.copytree(checkpoint("adam"), tmp_path / "adam")
    want = tensors.from_torch(gathered(folder / "source"))
    metadata = torch.distributed.checkpoint.FileSystemReader(folder / "source").read_metadata()
    for index, info in metadata.storage_data.items():
        if index.fqn.startswith("optim."):
            with open(folder / "source" / info.relative_path, "r+b") as file:
                file.seek(info.offset)
                file.write(b"\0" * info.length)
    tensors.assert_equal_bitwise(shown(folder), want)


def test_dtype_bf16_casts_as_torch_casts(checkpoint):
    folder = checkpoint("even")
    cast = {name: tensor.to(torch.bfloat16) for name, tensor in gathered(folder / "source").items()}
    tensors.assert_equal_bitwise(shown(folder, "--dtype", "bf16"), tensors.from_torch(cast))


def test_two_mounts_of_one_checkpoint_are_identical(checkpoint):
    folder = checkpoint("uneven")
    assert copies(folder, "--max-shard-size", "20KB") == copies(folder, "--max-shard-size", "20KB")


def copies(folder, *args):
    with mounted(folder / "source", "--config-from", folder / "config", *args) as point:
        return {path.name: path.read_bytes() for path in point.iterdir()}


def test_the_source_is_as_it_was(checkpoint):
    folder = checkpoint("hsdp")
    before = state_of(folder)
    shown(folder)
    assert state_of(folder) == before


def state_of(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_inspect_tells_for_every_tensor_where_it_comes_from(checkpoint):
    folder = checkpoint("uneven")
    command = [mounts.BINARY, "inspect", folder / "source", "--config-from", folder / "config", "--json"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (told["system"], told["family"]) == ("dcp", "llama")
    want = {name: list(tensor.shape) for name, tensor in tiny.model(**dcp.LAYOUTS["uneven"].shape).state_dict().items()}
    assert {tensor["name"]: tensor["shape"] for tensor in told["tensors"]} == want
    for tensor in told["tensors"]:
        files = {pathlib.Path(part["file"]).name for part in tensor["stored"]}
        assert files == {"__0_0.distcp", "__1_0.distcp", "__2_0.distcp"}
