"""vLLM generates from the mount what it generates from the real directory."""
import json
import re
import threading

import torch.distributed.checkpoint

import processes
import tensors
import tiny
from mounts import mounted

SHAPE = {"num_attention_heads": 2, "num_key_value_heads": 1, "dtype": "bfloat16"}  # its CPU attention wants head_dim 32
QUIET = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}


def generated(folder, *strategy):
    (printed,) = processes.run("readers/vllm_generate.py", folder, *strategy, environment="vllm", **QUIET)
    return json.loads(re.search(r"^tokens (.*)$", printed, re.MULTILINE)[1])


def test_vllm_generates_the_same_greedy_tokens(tmp_path):
    model = tiny.model(**SHAPE)
    model.save_pretrained(tmp_path / "real", max_shard_size="100KB")
    torch.distributed.checkpoint.save(model.state_dict(), checkpoint_id=tmp_path / "dcp")
    with mounted(tmp_path / "dcp", "--config-from", tmp_path / "real", "--max-shard-size", "100KB") as point:
        shown, prefetched = generated(point), generated(point, "prefetch")
    assert shown == prefetched == generated(tmp_path / "real")
    assert len(set(map(tuple, shown))) == 3


class Unhurried(torch.distributed.checkpoint.FileSystemWriter):
    """Writes all data, and the file that ends the save only when told to."""

    def __init__(self, path):
        super().__init__(path)
        self.written, self.may_end = threading.Event(), threading.Event()

    def finish(self, *args, **kwargs):
        self.written.set()
        assert self.may_end.wait(600)
        return super().finish(*args, **kwargs)


def test_vllm_starts_on_the_latest_step_while_the_next_is_written(tmp_path):
    first, second = tiny.model(seed=1, **SHAPE), tiny.model(seed=2, **SHAPE)
    first.save_pretrained(tmp_path / "real")
    torch.distributed.checkpoint.save(first.state_dict(), checkpoint_id=tmp_path / "run" / "step-1")
    writer = Unhurried(tmp_path / "run" / "step-2")
    training = threading.Thread(target=torch.distributed.checkpoint.save, args=[second.state_dict()], kwargs={"storage_writer": writer})
    training.start()
    assert writer.written.wait(60)
    with mounted(tmp_path / "run", "--config-from", tmp_path / "real") as point:
        shown = generated(point / "latest")
        writer.may_end.set()
        training.join()
        assert (point / "step-2").is_dir()
        tensors.assert_equal_bitwise(tensors.tensors_of(point / "step-2"), tensors.from_torch(second.state_dict()))
    assert shown == generated(tmp_path / "real")
