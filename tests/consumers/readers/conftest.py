"""One model twice: as the directory that save_pretrained writes, and as a DCP checkpoint mounted beside it."""
import types

import pytest
import torch.distributed.checkpoint

import tiny
from mounts import mounted

SHAPES = {
    "f32": {},
    "tied-bf16": {"tie_word_embeddings": True, "dtype": "bfloat16"},
}


@pytest.fixture(scope="session", params=SHAPES)
def model(request):
    return tiny.model(**SHAPES[request.param])


@pytest.fixture(scope="session")
def pair(model, tmp_path_factory):
    """pair.real and pair.shown: the same model in the same shards."""
    folder = tmp_path_factory.mktemp("pair")
    with in_both_forms(model, folder) as point:
        yield types.SimpleNamespace(real=folder / "real", shown=point)


def in_both_forms(model, folder):
    model.save_pretrained(folder / "real", max_shard_size="100KB")
    tiny.write_tokenizer(folder / "real")
    torch.distributed.checkpoint.save(model.state_dict(), checkpoint_id=folder / "dcp")
    return mounted(folder / "dcp", "--config-from", folder / "real", "--max-shard-size", "100KB")
