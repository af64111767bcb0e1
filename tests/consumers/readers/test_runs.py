"""A run that two processes are training, read as it grows. CKPTFS_RUN_SECONDS sets for how long."""
import concurrent.futures
import os
import re
import time

import torch

import processes
import tensors
import tiny
from mounts import mounted

SECONDS = float(os.environ.get("CKPTFS_RUN_SECONDS", 20))
READERS = 2

# Different steps that every reader must have seen, however long that takes.
STEPS = 4


def await_file(path, writer):
    deadline = time.monotonic() + 600
    while not path.exists():
        assert not writer.done(), writer.result()
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.05)


def counts(outputs):
    return [[int(number) for number in re.findall(r"\d+", text.splitlines()[-1])] for text in outputs]


def rest(folder):
    """Files that nothing marks as complete count as such when nobody has written for ten seconds."""
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (time.time() - 60,) * 2)


def test_checkpoints_of_transformers_trainer_are_a_run(tmp_path):
    run = tmp_path / "run"
    processes.run("readers/run_trainer.py", run)
    rest(run)
    with mounted(run) as point:
        assert sorted(path.name for path in point.iterdir()) == ["checkpoint-1", "checkpoint-2", "latest"]
        assert (point / "latest").resolve() == point / "checkpoint-2"
        for step in ("checkpoint-1", "checkpoint-2"):
            assert (point / step / "model.safetensors").read_bytes() == (run / step / "model.safetensors").read_bytes()


def test_files_of_lightning_are_a_run(tmp_path):
    run, config = tmp_path / "run", tiny.write_config(tmp_path / "config")
    processes.run("readers/run_lightning.py", run, environment="lightning", cwd=tmp_path)
    rest(run)
    names = ["epoch=0-step=1.ckpt", "epoch=0-step=2.ckpt", "last.ckpt"]
    with mounted(run, "--config-from", config) as point:
        assert sorted(path.name for path in point.iterdir()) == sorted([*names, "latest"])
        assert (point / "latest").resolve() == point / names[1]
        for name in names:
            saved = torch.load(run / name, weights_only=True)["state_dict"]
            saved = {key.removeprefix("model."): value for key, value in saved.items()}
            tensors.assert_equal_bitwise(tensors.tensors_of(point / name), tensors.from_torch(saved))


def test_every_load_of_the_latest_step_is_what_was_saved(tmp_path):
    config = tiny.write_config(tmp_path / "config")
    signs = tmp_path / "signs"
    signs.mkdir()
    options = {"timeout": SECONDS + 1200}
    with concurrent.futures.ThreadPoolExecutor() as threads:
        writer = threads.submit(processes.run, "readers/run_writer.py", tmp_path / "run", signs, world=2, **options)
        try:
            await_file(tmp_path / "run" / "step-1" / ".metadata", writer)
            with mounted(tmp_path / "run", "--config-from", config, "--max-shard-size", "100KB") as point:
                read = processes.run("readers/run_reader.py", point, signs, SECONDS, STEPS, world=READERS, **options)
        finally:
            (signs / "stop").touch()
        ((saved,), _) = counts(writer.result())
    for loads, steps in counts(read):
        print(f"{loads} loads of {steps} steps, while {saved} steps were saved")
        assert STEPS <= steps <= saved and steps <= loads
