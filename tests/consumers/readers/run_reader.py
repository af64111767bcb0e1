"""run_reader.py MOUNT SECONDS: loads the latest step in a loop, each time equal to what run_writer.py saved as that step."""
import pathlib
import sys
import tempfile
import time

import torch
import transformers

import tiny


def load(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(report.values()), report
    return model.state_dict()


def check(mount):
    for shown in mount.iterdir():
        assert not (shown / "ERROR.txt").exists(), (shown / "ERROR.txt").read_text()
    folder = (mount / "latest").resolve()
    step = int(folder.name.removeprefix("step-"))
    got, want = load(folder), tiny.model(seed=step).state_dict()
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want), f"step {step}"
    return step


def warm_up():
    """transformers imports most of itself on the first load, which on a slow machine takes longer than a step is kept."""
    with tempfile.TemporaryDirectory() as folder:
        tiny.model().save_pretrained(folder)
        load(folder)


if __name__ == "__main__":
    warm_up()
    end = time.monotonic() + float(sys.argv[2])
    steps = []
    while time.monotonic() < end:
        steps.append(check(pathlib.Path(sys.argv[1])))
    assert steps == sorted(steps)
    print("loads", len(steps), "of steps", len(set(steps)))
