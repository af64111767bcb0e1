"""pytorch_model.bin in its three forms. transformers 5 still reads them all and writes none."""
import json

import torch
from huggingface_hub import split_torch_state_dict_into_shards


def write(folder, state, max_shard_size="5GB", legacy=False):
    """One file, or shards with an index; legacy is the stream that torch wrote before 1.6."""
    folder.mkdir(parents=True, exist_ok=True)
    split = split_torch_state_dict_into_shards(
        state, filename_pattern="pytorch_model{suffix}.bin", max_shard_size=max_shard_size
    )
    for file, names in split.filename_to_tensors.items():
        torch.save({name: state[name] for name in names}, folder / file, _use_new_zipfile_serialization=not legacy)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
