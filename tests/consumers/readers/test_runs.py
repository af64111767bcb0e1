"""A run that two processes are training, read as it grows. CKPTFS_RUN_SECONDS sets for how long."""
import concurrent.futures
import os
import re
import time

import processes
import tiny
from mounts import mounted

SECONDS = float(os.environ.get("CKPTFS_RUN_SECONDS", 20))
READERS = 2


def await_file(path):
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.05)


def counts(outputs):
    return [[int(number) for number in re.findall(r"\d+", text.splitlines()[-1])] for text in outputs]


def test_every_load_of_the_latest_step_is_what_was_saved(tmp_path):
    config = tiny.write_config(tmp_path / "config")
    options = {"timeout": SECONDS + 120}
    with concurrent.futures.ThreadPoolExecutor() as threads:
        writer = threads.submit(processes.run, "readers/run_writer.py", tmp_path / "run", SECONDS + 10, world=2, **options)
        await_file(tmp_path / "run" / "step-1" / ".metadata")
        with mounted(tmp_path / "run", "--config-from", config, "--max-shard-size", "100KB") as point:
            read = processes.run("readers/run_reader.py", point, SECONDS, world=READERS, **options)
        ((saved,), _) = counts(writer.result())
    for loads, steps in counts(read):
        print(f"{loads} loads of {steps} steps, while {saved} steps were saved")
        assert 2 <= steps <= saved and steps <= loads
