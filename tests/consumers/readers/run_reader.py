"""run_reader.py MOUNT SIGNS SECONDS STEPS: loads the latest step in a loop, each time equal to what run_writer.py saved as that step,
for SECONDS and until it has seen STEPS different steps."""
import os
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


def tell(step, signs):
    """A reader of the file finds one number whole."""
    path = signs / f"reader-{os.environ['RANK']}"
    new = path.with_suffix(".new")
    new.write_text(str(step))
    new.rename(path)


def warm_up():
    """transformers imports most of itself on the first load."""
    with tempfile.TemporaryDirectory() as folder:
        tiny.model().save_pretrained(folder)
        load(folder)


def read(mount, signs, seconds, wanted):
    tell(0, signs)
    warm_up()
    end = time.monotonic() + seconds
    steps = []
    while time.monotonic() < end or len(set(steps)) < wanted:
        steps.append(check(mount))
        tell(steps[-1], signs)
    assert steps == sorted(steps)
    print("loads", len(steps), "of steps", len(set(steps)))


if __name__ == "__main__":
    read(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
