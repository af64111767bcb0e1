"""Training checkpoints as the directory or the tensors that their next reader expects.

`with ckptfs.mount(source) as path:` mounts a checkpoint as a Hugging Face directory. `ckptfs.open(source)` reads its tensors without a
mount. Both take the options of the command as keywords: `dtype="bf16"`, `config_from="~/hf"`, `merge=["adapter"]`.
"""
from ._error import Error
from .checkpoint import Checkpoint, Tensor, open
from .mounting import mount

__all__ = ["Checkpoint", "Error", "Tensor", "mount", "open"]
