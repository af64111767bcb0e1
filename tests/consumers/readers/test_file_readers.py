"""Readers of one safetensors file: the library itself, and llama.cpp's memory map per tensor."""
import json
import mmap
import os

import gguf.utility
import numpy
import pytest
import safetensors
import safetensors.torch
import torch

import tensors


def shards(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return sorted(set(index["weight_map"].values()))


def test_the_strictest_reader_accepts_the_folder(pair):
    tensors.assert_equal_bitwise(tensors.tensors_of(pair.shown), tensors.tensors_of(pair.real))


def test_load_file_equals_the_saved_model(pair, model):
    want = tensors.from_torch({name: tensor for name, tensor in model.state_dict().items() if in_file(model, name)})
    loaded = {}
    for shard in shards(pair.shown):
        loaded |= safetensors.torch.load_file(pair.shown / shard)
    tensors.assert_equal_bitwise(tensors.from_torch(loaded), want)


def in_file(model, name):
    return not (model.config.tie_word_embeddings and name == "lm_head.weight")


@pytest.mark.parametrize("part", [numpy.s_[1:7], numpy.s_[:, 3:40], numpy.s_[5:6, 2:3], numpy.s_[-2:]])
def test_safe_open_slices_equal_the_real_files_slices(pair, part):
    for shard in shards(pair.shown):
        with safetensors.safe_open(pair.shown / shard, "pt") as shown, safetensors.safe_open(pair.real / shard, "pt") as real:
            assert shown.metadata() == real.metadata()
            assert list(shown.keys()) == list(real.keys())
            for name in shown.keys():
                if len(shown.get_slice(name).get_shape()) == 2:
                    assert torch.equal(shown.get_slice(name)[part], real.get_slice(name)[part])


def test_llama_cpps_memory_map_per_tensor_equals_the_real_files(pair):
    for shard in shards(pair.shown):
        shown, real = (gguf.utility.SafetensorsLocal(folder / shard).tensors for folder in (pair.shown, pair.real))
        assert shown.keys() == real.keys()
        for name in shown:
            assert (shown[name].dtype, shown[name].shape) == (real[name].dtype, real[name].shape)
            assert numpy.array_equal(shown[name].mmap_bytes(), real[name].mmap_bytes())


def test_direct_reads_equal_the_real_files(pair):
    """O_DIRECT, as Run:ai's streamer and fastsafetensors open: aligned blocks, the last one short."""
    for shard in shards(pair.shown):
        assert direct(pair.shown / shard) == (pair.real / shard).read_bytes()


def direct(path, block=64 * 1024):
    buffer, data = mmap.mmap(-1, block), b""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        while count := os.preadv(fd, [buffer], len(data)):
            data += buffer[:count]
    finally:
        os.close(fd)
    return data


def test_reads_at_any_offset_and_length_equal_the_real_files(pair):
    for shard in shards(pair.shown):
        want = (pair.real / shard).read_bytes()
        fd = os.open(pair.shown / shard, os.O_RDONLY)
        try:
            for offset in (0, 1, 7, 8, 511, 4095, 4097, len(want) - 1, len(want), len(want) + 10):
                for length in (0, 1, 9, 4096, len(want)):
                    assert os.pread(fd, length, offset) == want[offset : offset + length]
        finally:
            os.close(fd)
