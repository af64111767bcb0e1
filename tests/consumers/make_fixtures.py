"""make_fixtures.py OUT: the small checkpoints in tests/data that the Rust suite mounts.

Each case is a folder: source/ as the framework wrote it, config/ where the source has none (for --config-from), and
expected.safetensors, the Hugging Face tensors that must come out. The source of torchtitan-llama3 is the example.
Run it with the base environment's Python; the Meta case needs the meta environment too.
"""
import pathlib
import shutil
import sys
import tempfile

from safetensors.torch import save

import processes
import tiny

sys.path.insert(0, str(processes.CONSUMERS / "systems"))
import dcp
import meta_llama
import pytorch_bin
import torchtitan_llama3

SMALL = dcp.small | dcp.bf16
ONE_LAYER = SMALL | {"num_hidden_layers": 1}
EXAMPLE = processes.ROOT / "examples" / "torchtitan-llama3"


def expected(folder, state):
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.contiguous() for name, tensor in state.items()}
    (folder / "expected.safetensors").write_bytes(save(whole, {"format": "pt"}))


def dcp_uneven_w3(folder):
    with tempfile.TemporaryDirectory() as scratch:
        processes.run("systems/dcp.py", ".", "uneven", world=3, cwd=scratch)
        shutil.copytree(pathlib.Path(scratch) / "uneven", folder)
    expected(folder, tiny.model(**SMALL).state_dict())


def hf_bin_sharded(folder):
    model = tiny.model(**SMALL, tie_word_embeddings=True)
    tiny.write_config(folder / "source", **SMALL, tie_word_embeddings=True)
    pytorch_bin.write(folder / "source", model.state_dict(), max_shard_size="30KB")
    state = model.state_dict()
    state.pop("lm_head.weight")
    expected(folder, state)


def legacy_bin(folder):
    model = tiny.model(**ONE_LAYER)
    tiny.write_config(folder / "source", **ONE_LAYER)
    pytorch_bin.write(folder / "source", model.state_dict(), legacy=True)
    expected(folder, model.state_dict())


def verl_fsdp2_w2(folder):
    processes.run("systems/fsdp2_rank_files.py", folder / "source", world=2)
    expected(folder, tiny.model(**ONE_LAYER).state_dict())


def meta_mp2(folder):
    shape = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "vocab_size": 130}
    meta_llama.write(folder / "source", 2, generation=2, **shape)
    with tempfile.TemporaryDirectory() as scratch:
        processes.run("systems/meta_convert.py", folder / "source", scratch, 2, 2, 130, environment="meta")
        shutil.copyfile(pathlib.Path(scratch) / "model.safetensors", folder / "expected.safetensors")


def torchtitan(folder):
    expected(folder, torchtitan_llama3.to_hf(EXAMPLE / "checkpoint" / "step-10", EXAMPLE / "hf_assets"))


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    dcp_uneven_w3(out / "dcp-uneven-w3")
    hf_bin_sharded(out / "hf-bin-sharded")
    legacy_bin(out / "legacy-bin")
    verl_fsdp2_w2(out / "verl-fsdp2-w2")
    meta_mp2(out / "meta-mp2")
    torchtitan(out / "torchtitan-llama3")
