"""Whatever container holds the weights, the files that appear are those that save_pretrained would have written, byte for byte."""
import hashlib

import pytest
import torch
import torch.distributed.checkpoint
from transformers import AutoConfig, AutoModelForCausalLM

import pytorch_bin
import tiny
from mounts import mounted

SHAPES = {
    "f32": {},
    "bf16": {"dtype": "bfloat16"},
    "tied": {"tie_word_embeddings": True},
    "tied-bf16": {"tie_word_embeddings": True, "dtype": "bfloat16"},
    "twelve-layers": {"num_hidden_layers": 12, "hidden_size": 32, "vocab_size": 130},
    "f32-norms-in-bf16": {"dtype": "bfloat16"},
}


@pytest.fixture(scope="module", params=SHAPES)
def model(request):
    made = tiny.model(**SHAPES[request.param])
    if request.param.startswith("f32-norms"):
        for name, module in made.named_modules():
            if "norm" in name:
                module.float()
    return made


@pytest.fixture(scope="module", params=["50GB", "100KB"], ids=["one-file", "shards"])
def max_shard_size(request):
    return request.param


@pytest.fixture(scope="module")
def saved(model, max_shard_size, tmp_path_factory):
    """What save_pretrained writes at this shard size."""
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def save_pretrained(model, folder):
    model.save_pretrained(folder, max_shard_size="70KB")
    return folder


def bin_file(model, folder):
    pytorch_bin.write(folder, model.state_dict())
    return folder


def bin_shards(model, folder):
    pytorch_bin.write(folder, model.state_dict(), max_shard_size="70KB")
    return folder


def legacy_bin(model, folder):
    pytorch_bin.write(folder, model.state_dict(), legacy=True)
    return folder


def pt_file(model, folder):
    folder.mkdir()
    torch.save({"model": model.state_dict(), "step": 3}, folder / "model.pt")
    return folder / "model.pt"


def dcp(model, folder):
    torch.distributed.checkpoint.save(model.state_dict(), checkpoint_id=folder)
    return folder


@pytest.mark.parametrize("write", [save_pretrained, bin_file, bin_shards, legacy_bin, pt_file, dcp])
def test_files_are_byte_identical_to_save_pretraineds(model, saved, max_shard_size, tmp_path, write):
    source = write(model, tmp_path / "source")
    with mounted(source, "--config-from", saved, "--max-shard-size", max_shard_size) as point:
        assert digests(point) == digests(saved)


def test_its_own_folder_needs_no_config_from(saved, max_shard_size):
    with mounted(saved, "--max-shard-size", max_shard_size) as point:
        assert digests(point) == digests(saved)


UNLISTED = {
    "gpt2": dict(n_embd=64, n_layer=12, n_head=4, vocab_size=256),
    "olmo2": dict(hidden_size=64, intermediate_size=96, num_hidden_layers=12, num_attention_heads=4, vocab_size=256),
    "opt": dict(hidden_size=64, ffn_dim=96, num_hidden_layers=12, num_attention_heads=4, vocab_size=256, word_embed_proj_dim=64),
}


@pytest.mark.parametrize("write", [bin_file, dcp])
@pytest.mark.parametrize("family", UNLISTED)
def test_files_of_a_family_without_a_table_are_byte_identical_too(family, write, tmp_path):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **UNLISTED[family]))
    saved = save_pretrained(model, tmp_path / "saved")
    with mounted(write(model, tmp_path / "source"), "--config-from", saved, "--max-shard-size", "70KB") as point:
        assert digests(point) == digests(saved)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
