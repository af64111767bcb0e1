"""vLLM generates from the mount what it generates from the real directory."""
import json
import re

import torch.distributed.checkpoint

import processes
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
