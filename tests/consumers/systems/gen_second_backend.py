"""torchtitan 0.3.0's second backend: torch_checkpointing 0.1.1 by itself, whose save titan does not call yet.

    gen_second_backend.py OUT

Not a case: the layout is to be recognised and refused by name.
"""
import sys

from torch_checkpointing.checkpoint_manager import CheckpointManager
from torch_checkpointing.config import SyncCheckpointSaverConfig
from torch_checkpointing.storage.filesystem import LocalFileSystemStorageConfig

import hf
import ranks
from case import Case


def save(rank, folder):
    state = hf.model(hf.config("llama")).state_dict()
    config = CheckpointManager.Config(save=SyncCheckpointSaverConfig(), storage_config=LocalFileSystemStorageConfig(use_direct_io=False))
    manager = CheckpointManager(config)
    manager.save(str(folder), {"model": dict(state), "train_state": {"step": 10}})
    manager.close()


def main(out):
    case = Case(out, "titan030-second-backend", system="torchtitan", family="llama", packages=("torch", "torchtitan"))
    case.config(hf.saved(hf.model(hf.config("llama")))[1])
    ranks.run(2, save, case.source / "step-10")
    case.refused(["torch_checkpointing"], source="source/step-10", config_from="config")


if __name__ == "__main__":
    main(sys.argv[1])
