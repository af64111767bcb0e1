"""An exported DCP checkpoint is, file by file, what save_pretrained writes of the same model."""
import subprocess

import pytest
import torch.distributed.checkpoint

import tiny
from mounts import BINARY


@pytest.mark.parametrize("shape", [{}, {"tie_word_embeddings": True, "dtype": "bfloat16"}], ids=["f32", "tied-bf16"])
@pytest.mark.parametrize("shards", ["5GB", "100KB"])
def test_an_exported_dcp_has_save_pretraineds_files(shape, shards, tmp_path):
    model = tiny.model(**shape)
    model.save_pretrained(tmp_path / "real", max_shard_size=shards)
    torch.distributed.checkpoint.save(model.state_dict(), checkpoint_id=tmp_path / "dcp")
    options = ["--config-from", tmp_path / "real", "--max-shard-size", shards]
    subprocess.run([BINARY, "export", tmp_path / "dcp", tmp_path / "out", *options], check=True, timeout=60)
    real, out = ({file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()} for folder in ("real", "out"))
    assert real.keys() == out.keys()
    assert [name for name in real if real[name] != out[name]] == []
