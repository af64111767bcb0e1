"""torchtitan 0.3.0's llama3: its own model, FSDP, AdamW and CheckpointManager, on CPU; and its own way to Hugging Face.

As a script, one process of a run: torchtitan_llama3.py OUT HF_ASSETS [full|model|hf]
writes OUT/checkpoint/step-10, the shape taken from HF_ASSETS/config.json.
"""
import json
import os
import pathlib
import sys

import torch

torch._utils._get_available_device_type = lambda: "cpu"  # torchtitan asks at import, and knows no CPU

from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.dataloader import ParallelAwareDataloader
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
from torchtitan.config import CompileConfig, ParallelismConfig, TrainingConfig
from torchtitan.distributed import ParallelDims
from torchtitan.models import llama3
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm

STEP = 10


def model_config(hf_assets):
    """torchtitan's configuration of the model that a Hugging Face config.json describes."""
    shape = json.loads((pathlib.Path(hf_assets) / "config.json").read_text())
    dim, vocab, heads = shape["hidden_size"], shape["vocab_size"], shape["num_attention_heads"]
    return llama3.Llama3Model.Config(
        dim=dim,
        vocab_size=vocab,
        enable_weight_tying=shape["tie_word_embeddings"],
        tok_embeddings=Embedding.Config(
            num_embeddings=vocab, embedding_dim=dim, param_init=llama3._EMBEDDING_INIT
        ),
        norm=RMSNorm.Config(normalized_shape=dim, param_init=llama3._NORM_INIT),
        lm_head=Linear.Config(
            in_features=dim, out_features=vocab, param_init=llama3._output_linear_init(dim)
        ),
        layers=llama3._build_llama3_layers(
            n_layers=shape["num_hidden_layers"],
            dim=dim,
            n_heads=heads,
            n_kv_heads=shape["num_key_value_heads"],
            hidden_dim=shape["intermediate_size"],
            rope=ComplexRoPE.Config(dim=dim // heads, max_seq_len=shape["max_position_embeddings"]),
            attn_backend="flex",
        ),
    )


def to_hf(step, hf_assets):
    """The step's weights under Hugging Face names: torchtitan's scripts/checkpoint_conversion/convert_to_hf."""
    import torch.distributed.checkpoint as dcp
    from torchtitan.components.checkpoint import ModelWrapper

    shape = model_config(hf_assets)
    state = ModelWrapper(shape.build()).state_dict()
    dcp.load(state, checkpoint_id=str(step))
    return llama3.Llama3StateDictAdapter(shape, None).to_hf(state)


class TrainState:
    """What Trainer.state_dict holds."""

    def state_dict(self):
        return {"step": STEP, "ntokens_seen": 40960}

    def load_state_dict(self, state):
        raise NotImplementedError


def save(out, hf_assets, what):
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(0)
    shape = model_config(hf_assets)
    parallelism = ParallelismConfig(spmd_backend="partial_dtensor")
    with torch.device("meta"):
        model = shape.build()
    llama3.parallelize_llama(
        model,
        parallel_dims=ParallelDims.from_config(parallelism, world),
        training=TrainingConfig(),
        parallelism=parallelism,
        compile_config=CompileConfig(),
        ac_config=None,
        dump_folder=out,
    )
    model.to_empty(device="cpu")
    with torch.no_grad():
        model.init_weights(buffer_device=None)
    optimizers = default_adamw(lr=1e-2).build(model_parts=[model])
    schedulers = LRSchedulersContainer.Config(warmup_steps=2).build(optimizers=optimizers, training_steps=STEP)
    for _ in range(STEP):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizers.step()
        schedulers.step()
    CheckpointManager.Config(
        enable=True,
        last_save_model_only=what != "full",
        last_save_in_hf=what == "hf",
    ).build(
        dataloader=ParallelAwareDataloader(range(world), rank, world),
        model_parts=[model],
        optimizers=optimizers,
        lr_schedulers=schedulers,
        states={"train_state": TrainState()},
        sd_adapter=llama3.Llama3StateDictAdapter(shape, hf_assets),
        base_folder=out,
    ).save(STEP, last_step=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    save(*sys.argv[1:3], *(sys.argv[3:] or ["full"]))
