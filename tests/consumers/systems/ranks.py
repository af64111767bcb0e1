"""Runs a function in N processes joined by gloo, on CPU."""
import os
import sys
import tempfile
import traceback
from multiprocessing import get_context

import torch
import torch.distributed as dist

torch.set_num_threads(1)  # in the parent: a thread pool does not survive the fork
for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
    os.environ.pop(name, None)  # the parent is no rank: Accelerate would join a world of its own, which the ranks inherit


def run(world, function, *args, seconds=120):
    """Call function(rank, *args) in `world` processes; raise if any of them fails or is late."""
    with tempfile.TemporaryDirectory() as folder:
        context = get_context("fork")
        ranks = [context.Process(target=_rank, args=(r, world, f"{folder}/store", function, args)) for r in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(seconds)
            if process.is_alive():
                process.kill()
                process.join()
    failed = [r for r, process in enumerate(ranks) if process.exitcode]
    if failed:
        raise RuntimeError(f"{function.__name__}: ranks {failed} of {world} failed")


def _rank(rank, world, store, function, args):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        function(rank, *args)
        dist.barrier()
        dist.destroy_process_group()
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
