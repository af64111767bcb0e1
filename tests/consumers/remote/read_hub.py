"""read_hub.py ENDPOINT FOLDER: the hub's own clients read what `serve` answers, and find the bytes of a folder."""
import pathlib
import sys

import torch
from huggingface_hub import HfApi, HfFileSystem, snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM

here = pathlib.Path(sys.argv[2])
downloaded = pathlib.Path(snapshot_download("any/model", revision="step-10"))
for path in here.rglob("*"):
    if path.is_file():
        assert (downloaded / path.relative_to(here)).read_bytes() == path.read_bytes(), path
files = HfFileSystem()
assert {name.rsplit("/", 1)[-1] for name in files.ls("any/model", detail=False)} == {path.name for path in here.iterdir()}
with files.open("any/model/model.safetensors", "rb") as file:
    file.seek(8)
    assert file.read(100) == (here / "model.safetensors").read_bytes()[8:108]
assert [tag.name for tag in HfApi().list_repo_refs("any/model").tags] == ["step-10"]
config = AutoConfig.from_pretrained("any/model")
model, own = AutoModelForCausalLM.from_pretrained("any/model"), AutoModelForCausalLM.from_pretrained(here)
tokens = torch.arange(16)[None] % config.vocab_size
assert torch.equal(model(tokens).logits, own(tokens).logits)
