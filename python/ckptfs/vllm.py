"""vLLM without a mount: the load format `ckptfs`, which vLLM registers by itself where this package is installed.

    LLM(hf_assets, load_format="ckptfs", model_loader_extra_config={"source": "run/step-4000", "dtype": "bf16"})

The model is the folder of config.json and the tokenizer; the weights come from `source`. The other entries are options of
`ckptfs.open`; `config_from` is the model's folder unless it is given.
"""
import os

from ._error import Error
from .checkpoint import open


def register():
    """Registers the loader; the entry point of vLLM's plugins."""
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    @register_model_loader("ckptfs")
    class CheckpointLoader(BaseModelLoader):
        def download_model(self, model_config):
            """Nothing is fetched: the weights are read where they lie."""

        def load_weights(self, model, model_config):
            options = dict(self.load_config.model_loader_extra_config or {})
            source = options.pop("source", None)
            if source is None:
                raise Error('load_format="ckptfs" needs model_loader_extra_config={"source": CHECKPOINT}')
            if os.path.isdir(model_config.model):
                options.setdefault("config_from", model_config.model)
            checkpoint = open(source, **options)
            model.load_weights((name, tensor.torch()) for name, tensor in checkpoint.items())
