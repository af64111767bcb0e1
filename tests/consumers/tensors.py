"""Tensors as what is compared: dtype, shape, bytes. The reader of a directory is as strict as the strictest consumer."""
import json
import struct


def tensors_of(directory):
    """The tensors of a Hugging Face directory; raises on anything that some reader would refuse."""
    index_path = directory / "model.safetensors.index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else None
    files = sorted(set(index["weight_map"].values())) if index else ["model.safetensors"]
    found = sorted(str(path.relative_to(directory)) for path in directory.rglob("*.safetensors"))
    if found != files:
        raise ValueError(f"weight files {found}, the index names {files}")
    if len(list(directory.rglob("*.index.json"))) != (index is not None):
        raise ValueError("a second index")
    tensors = {}
    for file in files:
        metadata, some = parse((directory / file).read_bytes())
        if metadata != {"format": "pt"}:
            raise ValueError(f"{file}: __metadata__ is {metadata}")
        if index and {name for name, shard in index["weight_map"].items() if shard == file} != set(some):
            raise ValueError(f"{file}: the index and the header name different tensors")
        tensors |= some
    if index and index["metadata"]["total_size"] != sum(len(data) for _, _, data in tensors.values()):
        raise ValueError(f"total_size {index['metadata']['total_size']}")
    json.loads((directory / "config.json").read_text())
    return tensors


def parse(raw):
    """The metadata and the tensors of one safetensors file that has no hole, no overlap and no trailing byte."""
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    metadata = header.pop("__metadata__", None)
    end, tensors = 0, {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if start != end:
            raise ValueError(f"{name} starts at {start}, the one before ends at {end}")
        tensors[name] = (entry["dtype"], entry["shape"], raw[8 + length + start : 8 + length + stop])
        end = stop
    if 8 + length + end != len(raw):
        raise ValueError(f"{len(raw)} bytes, the header promises {8 + length + end}")
    return metadata, tensors


def from_torch(state_dict):
    """A torch state dict in the form that tensors_of returns."""
    from safetensors.torch import save

    return parse(save({name: tensor.detach().clone().contiguous() for name, tensor in state_dict.items()}))[1]


def assert_equal_bitwise(got, want):
    """Both as tensors_of returns them; every difference is named."""
    wrong = [f"missing {name}" for name in sorted(want.keys() - got.keys())]
    wrong += [f"extra {name}" for name in sorted(got.keys() - want.keys())]
    for name in sorted(got.keys() & want.keys()):
        if got[name][:2] != want[name][:2]:
            wrong.append(f"{name}: {got[name][:2]}, expected {want[name][:2]}")
        elif got[name][2] != want[name][2]:
            wrong.append(f"{name}: other bytes")
    assert not wrong, "\n".join(wrong)
