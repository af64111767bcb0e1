"""torchtune 0.6.1's checkpointers start from mounts.

    start_torchtune.py OUT TUNE META   OUT a Hugging Face folder; TUNE and META its mounts for the two other checkpointers
"""
import sys
import tempfile

import torch
from torchtune.training import FullModelHFCheckpointer, FullModelMetaCheckpointer, FullModelTorchTuneCheckpointer

MODEL = "LLAMA3"


def loaded(cls, folder, files):
    with tempfile.TemporaryDirectory() as out:
        return cls(checkpoint_dir=folder, checkpoint_files=files, model_type=MODEL, output_dir=out).load_checkpoint()["model"]


def main(source, tune, meta):
    wanted = loaded(FullModelHFCheckpointer, source, ["model.safetensors"])
    for cls, folder, file in ((FullModelTorchTuneCheckpointer, tune, "model.pt"), (FullModelMetaCheckpointer, meta, "consolidated.00.pth")):
        state = loaded(cls, folder, [file])
        assert set(state) == set(wanted), set(state) ^ set(wanted)
        for name, tensor in wanted.items():
            assert torch.equal(state[name], tensor), (cls, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
