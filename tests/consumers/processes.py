"""Runs a writer script in one of the environments, alone or as N processes of one gloo world."""
import os
import pathlib
import socket
import subprocess
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONSUMERS = ROOT / "tests" / "consumers"
ENVIRONMENTS = pathlib.Path(os.environ.get("CKPTFS_ENVS", ROOT / "target" / "envs"))


def python(environment="base"):
    """The interpreter of an environment that tests/run has made. Only CKPTFS_OFFLINE=1 turns a missing one into a skip."""
    path = ENVIRONMENTS / environment / "bin" / "python"
    if not path.exists():
        missing = f"no environment {environment} in {ENVIRONMENTS}: run tests/run consumers"
        if os.environ.get("CKPTFS_OFFLINE"):
            pytest.skip(f"NOT TESTED: {missing}")
        raise FileNotFoundError(missing)
    return path


def run(script, *args, world=1, environment="base", cwd=None, timeout=300, **variables):
    """Run `script args` as `world` processes that find each other by the usual torch.distributed variables."""
    shared = {
        **os.environ,
        "PYTHONPATH": str(CONSUMERS),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(world),
        **variables,
    }
    command = [python(environment), CONSUMERS / script, *map(str, args)]
    logs = [tempfile.TemporaryFile("w+") for _ in range(world)]
    processes = [
        subprocess.Popen(
            command,
            cwd=cwd,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        for rank, log in enumerate(logs)
    ]
    deadline = time.monotonic() + timeout
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                break  # the others would wait for it
            if time.monotonic() > deadline:
                raise TimeoutError(f"{script} runs for more than {timeout} s")
            time.sleep(0.05)
    finally:
        failed = [(rank, process.returncode) for rank, process in enumerate(processes) if process.poll()]
        for process in processes:
            process.kill()
            process.wait()
    outputs = []
    for log in logs:
        log.seek(0)
        outputs.append(log.read())
        log.close()
    for rank, status in failed:
        raise RuntimeError(f"{script}: rank {rank} of {world} exited with {status}\n{outputs[rank][-4000:]}")
    return outputs


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
