"""Meta's layout shows as transformers 4.46.3's convert_llama_weights_to_hf writes it, config.json derived from params.json."""
import json

import pytest
import torch

import meta_llama
import processes
import tensors
from mounts import mounted

KEYS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")
KEYS += ("vocab_size", "rms_norm_eps", "tie_word_embeddings", "model_type", "architectures")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "f32"])
@pytest.mark.parametrize("parallel, generation", [(1, 3), (2, 2), (4, 3)], ids=["mp1-llama3", "mp2-llama2", "mp4-llama3"])
def test_model_parallel_files_equal_transformers_conversion(tmp_path, parallel, generation, dtype):
    source, reference = tmp_path / "source", tmp_path / "reference"
    meta_llama.write(source, parallel, generation, dtype, n_kv_heads=max(2, parallel))
    processes.run("systems/meta_convert.py", source, reference, parallel, generation, 512, environment="meta")
    with mounted(source, "--dtype", "bf16") as point:
        tensors.assert_equal_bitwise(tensors.tensors_of(point), tensors.tensors_of(reference))
        got, want = (json.loads((folder / "config.json").read_text()) for folder in (point, reference))
    assert {key: got.get(key) for key in KEYS} == {key: want[key] for key in KEYS}
    assert got.get("head_dim", 16) == 16


def test_without_dtype_the_source_keeps_its_own(tmp_path):
    meta_llama.write(tmp_path / "source", 2, dtype=torch.float32)
    with mounted(tmp_path / "source") as point:
        assert {dtype for dtype, _, _ in tensors.tensors_of(point).values()} == {"F32"}
