"""A checkpoint with one mistake is refused with one line that a user can act on, for every system."""
import pytest

import checked
import gen_mistakes
import processes

GENERATORS = {
    "verl": ("gen_verl.py", "verl"),
    "mcore": ("gen_megatron.py", "verl"),
    "tune061": ("gen_torchtune.py", "torchtune"),
    "tune031": ("gen_torchtune.py", "torchtune-old"),
    "lingua": ("gen_lingua.py", "base"),
    "meta": ("gen_meta.py", "base"),
    "mistral": ("gen_meta.py", "base"),
    "titan030": ("gen_titan.py", "base"),
    "accelerate": ("gen_pytorch.py", "base"),
    "pytorch": ("gen_pytorch.py", "base"),
    "tf": ("gen_transformers.py", "base"),
    "lightning": ("gen_lightning.py", "lightning"),
}


@pytest.mark.parametrize("name", gen_mistakes.MISTAKES)
def test_a_mistake_is_refused_in_one_useful_line(tmp_path, name):
    script, environment = GENERATORS[gen_mistakes.MISTAKES[name][1].split("-")[0]]
    args = [processes.python("meta")] if script == "gen_meta.py" else []
    gen_mistakes.make(checked.generate(script, *args, environment=environment), tmp_path, name)
    checked.refused(tmp_path / name)


def test_torchtitans_second_backend_is_refused_by_name(tmp_path):
    processes.run("systems/gen_second_backend.py", tmp_path)
    checked.refused(tmp_path / "titan030-second-backend")
