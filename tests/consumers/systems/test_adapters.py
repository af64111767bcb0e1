"""Adapters in the training system's own names: torchtune's own keys in three versions, torchtitan's LoRA step folders."""
import json

import pytest

import checked

GENERATORS = [
    ("gen_torchtune_lora.py", "torchtune"),
    ("gen_torchtune_lora.py", "torchtune-05"),
    ("gen_torchtune_lora.py", "torchtune-old"),
    ("gen_titan_lora.py", "base"),
]


@pytest.mark.parametrize("script, environment", GENERATORS)
def test_adapters_follow_the_rows_of_their_weights(subtests, script, environment):
    folder = checked.generate(script, environment=environment)
    checked.check(folder, subtests)
    for refused in folder.glob("*/refuse.json"):
        with subtests.test(msg=refused.parent.name):
            checked.refused(refused.parent)


def test_an_adapter_config_is_made_of_the_ranks_the_targets_and_the_alpha_given():
    case = checked.generate("gen_torchtune_lora.py", environment="torchtune") / "tune061-lora-dora"
    spec = json.loads((case / "case.json").read_text())
    with checked.mounts.mounted(case / spec["source"], *checked.arguments(case, spec)) as point:
        config = json.loads((point / "adapter_config.json").read_text())
    targets = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["use_dora"], config["target_modules"]) == (4, 8.0, True, targets)


def test_an_adapter_whose_alpha_nobody_tells_is_refused_and_the_flag_named():
    case = checked.generate("gen_torchtune_lora.py", environment="torchtune") / "tune061-lora-own-llama"
    assert "--lora-alpha" in checked.mounts.refusal(case / "source/epoch_0", "--adapter", "--config-from", case / "config")
