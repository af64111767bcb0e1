"""What torchtitan's CheckpointManager saved shows as what torchtitan's own adapter converts it to."""
import pytest

import processes
import tensors
import tiny
import torchtitan_llama3
from mounts import mounted


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder: checkpoint/step-10 beside hf_assets."""

    def write(what, **shape):
        out = tmp_path_factory.mktemp(what)
        tiny.write_config(out / "hf_assets", **shape)
        tiny.write_tokenizer(out / "hf_assets")
        processes.run("systems/torchtitan_llama3.py", out, out / "hf_assets", what, world=2)
        return out

    return write


def shown(out, *args):
    with mounted(out / "checkpoint" / "step-10", "--config-from", out / "hf_assets", *args) as point:
        return tensors.tensors_of(point)


def converted(out):
    return tensors.from_torch(torchtitan_llama3.to_hf(out / "checkpoint" / "step-10", out / "hf_assets"))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_full_checkpoint_with_adam_equals_the_adapters_to_hf(run, tied):
    out = run("full", tie_word_embeddings=tied)
    want = converted(out)
    assert ("lm_head.weight" in want) != tied
    tensors.assert_equal_bitwise(shown(out), want)


def test_model_only_checkpoint_equals_the_adapters_to_hf(run):
    out = run("model")
    tensors.assert_equal_bitwise(shown(out), converted(out))


def test_hf_export_shows_the_tensors_it_holds(run):
    """The folder has the whole file, its index, and in sharded/ every tensor once more, in pieces."""
    out = run("hf")
    (whole,) = (out / "checkpoint" / "step-10").glob("*.safetensors")
    tensors.assert_equal_bitwise(shown(out), tensors.parse(whole.read_bytes())[1])


def test_the_example_equals_the_adapters_to_hf():
    example = processes.ROOT / "examples" / "torchtitan-llama3"
    tensors.assert_equal_bitwise(shown(example), converted(example))


def test_tokenizer_and_config_are_the_assets_own():
    example = processes.ROOT / "examples" / "torchtitan-llama3"
    with mounted(example / "checkpoint" / "step-10", "--config-from", example / "hf_assets") as point:
        for asset in (example / "hf_assets").iterdir():
            assert (point / asset.name).read_bytes() == asset.read_bytes()
            assert not (point / asset.name).is_symlink()
