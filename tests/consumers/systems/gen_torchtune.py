"""torchtune checkpoints from its own checkpointers.

    gen_torchtune.py OUT        (torchtune 0.6.1, 0.5.0 or 0.3.1: the layout on disk is the version's)

A tiny Hugging Face model enters through FullModelHFCheckpointer.load_checkpoint and leaves through each checkpointer. The reference is
the version's own tune_to_hf, compared with the model that went in.
"""
import json
import logging
import pathlib
import shutil
import sys
import tempfile

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import hf
import ranks
from case import Case, same
from torchtune import training
from torchtune.models import convert_weights
from torchtune.models.llama3 import _component_builders as llama3
from torchtune.modules.peft import get_adapter_params, get_merged_lora_ckpt
from torchtune.training import FullModelHFCheckpointer, FullModelMetaCheckpointer, FullModelTorchTuneCheckpointer
from importlib.metadata import version

logging.disable(logging.ERROR)
VERSION = version("torchtune")
NEW = not VERSION.startswith(("0.2", "0.3", "0.4"))  # an epoch_E folder with its own config.json
SHORT = VERSION.replace(".", "")
EPOCH = "source/epoch_0" if NEW else "source"
PACKAGES = ("torch", "torchtune", "torchao", "transformers")
FAMILIES = {  # transformers model type -> (torchtune's ModelType, changes)
    "llama": ("LLAMA3", dict()),
    "mistral": ("MISTRAL", dict(head_dim=32)),
    "gemma": ("GEMMA", dict(head_dim=32, tie_word_embeddings=True)),
    "gemma2": ("GEMMA2", dict(head_dim=32, tie_word_embeddings=True)),
    "qwen2": ("QWEN2", dict()),
    "phi3": ("PHI3_MINI", dict()),
}


class Base:
    """The folder that a fine-tune starts from, and the torchtune state dict made of it."""

    def __init__(self, family, dtype, folder, *, model_type=None, shards="10GB", cls=AutoModelForCausalLM, **changes):
        kind, defaults = FAMILIES[family]
        self.family, self.kind, self.folder = family, model_type or kind, pathlib.Path(folder)
        cfg = hf.config(family, **{**defaults, **changes})
        made = hf.model(cfg, dtype, cls=cls)
        self.tensors, self.config = hf.saved(made)
        made.save_pretrained(self.folder, max_shard_size=shards)
        self.files = sorted(p.name for p in self.folder.glob("*.safetensors"))

    def hf_checkpointer(self, output, **more):
        return FullModelHFCheckpointer(str(self.folder), self.files, self.kind, str(output), **more)

    def tune(self):
        with tempfile.TemporaryDirectory() as output:
            return self.hf_checkpointer(output).load_checkpoint()[training.MODEL_KEY]


def state_of(tensors):
    return {training.MODEL_KEY: dict(tensors), training.OPT_KEY: {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-3}]},
            training.SEED_KEY: 0, training.EPOCHS_KEY: 1, training.TOTAL_EPOCHS_KEY: 2, training.MAX_STEPS_KEY: 10}


def start(out, name, base):
    case = Case(out, f"tune{SHORT}-{name}", system="torchtune", family=base.family, packages=PACKAGES)
    case.config(base.config)
    return case


def save_hf(out, name, family, dtype, *, shards="10GB", safe=True, epoch=0, intermediate=True, special="", **changes):
    """FullModelHFCheckpointer: Hugging Face names already; the file names are what differs."""
    with tempfile.TemporaryDirectory() as folder:
        base = Base(family, dtype, folder, shards=shards, **changes)
        case = start(out, name, base)
        checkpointer = base.hf_checkpointer(case.source, safe_serialization=safe)
        state = checkpointer.load_checkpoint()
        checkpointer.save_checkpoint(state_of(state[training.MODEL_KEY]), epoch=epoch, intermediate_checkpoint=intermediate)
        source = f"source/epoch_{epoch}" if NEW else "source"
        case.done(base.tensors, by="the model that was loaded (the checkpointer writes Hugging Face names)", source=source,
                  config_from=None if NEW else "config", special=special)


def save_tune(out, name, family, dtype, *, with_config=True, special="", **changes):
    """FullModelTorchTuneCheckpointer: torchtune's keys under a file name like Hugging Face's."""
    with tempfile.TemporaryDirectory() as folder:
        base = Base(family, dtype, folder, **changes)
        case = start(out, name, base)
        tune = base.tune()
        with tempfile.TemporaryDirectory() as start_folder:
            torch.save(tune, f"{start_folder}/start.pt")
            if with_config:
                shutil.copy(base.folder / "config.json", start_folder)
            checkpointer = FullModelTorchTuneCheckpointer(start_folder, ["start.pt"], base.kind, str(case.source))
            checkpointer.save_checkpoint(state_of(checkpointer.load_checkpoint()[training.MODEL_KEY]), epoch=0, intermediate_checkpoint=True)
        reference = to_hf(base, tune)
        same(reference, base.tensors)
        inside = NEW and with_config
        case.done(reference, by=f"torchtune {VERSION} tune_to_hf, equal to the model that was loaded", source=EPOCH,
                  config_from=None if inside else "config", special=special)


def to_hf(base, tune):
    """The version's own converter, as its FullModelHFCheckpointer calls it."""
    c = base.config
    heads = dict(num_heads=c["num_attention_heads"], num_kv_heads=c["num_key_value_heads"], dim=c["hidden_size"])
    if base.kind == "PHI3_MINI":
        from torchtune.models.phi3._convert_weights import phi3_tune_to_hf
        return phi3_tune_to_hf(dict(tune))
    if base.kind == "REWARD":
        from torchtune.rlhf.utils import reward_tune_to_hf
        return reward_tune_to_hf(dict(tune), **heads)
    if base.kind == "QWEN2":
        from torchtune.models.qwen2._convert_weights import qwen2_tune_to_hf
        return qwen2_tune_to_hf(dict(tune), **heads, tie_word_embeddings=c["tie_word_embeddings"])
    if base.kind == "GEMMA2":
        from torchtune.models.gemma2._convert_weights import gemma2_tune_to_hf
        return gemma2_tune_to_hf(dict(tune), **heads, head_dim=c.get("head_dim"))
    return convert_weights.tune_to_hf(dict(tune), **heads, head_dim=c.get("head_dim"))


def save_meta(out, name, dtype, *, special="", tied=False):
    """FullModelMetaCheckpointer: Meta's keys."""
    with tempfile.TemporaryDirectory() as folder:
        base = Base("llama", dtype, folder, model_type="LLAMA3_2" if tied else "LLAMA3", tie_word_embeddings=tied)
        case = start(out, name, base)
        tune = base.tune()
        with tempfile.TemporaryDirectory() as start_folder:
            torch.save(convert_weights.tune_to_meta({**tune, **({"output.weight": tune["tok_embeddings.weight"]} if tied else {})}), f"{start_folder}/consolidated.00.pth")
            (pathlib.Path(start_folder) / "params.json").write_text(json.dumps(params(base.config)))
            checkpointer = FullModelMetaCheckpointer(start_folder, ["consolidated.00.pth"], base.kind, str(case.source))
            checkpointer.save_checkpoint(state_of(checkpointer.load_checkpoint()[training.MODEL_KEY]), epoch=0, intermediate_checkpoint=True)
        case.done(base.tensors, by="the model that was loaded (torchtune has no Meta to Hugging Face converter)", source=EPOCH, special=special)


def params(c):
    return {"dim": c["hidden_size"], "n_layers": c["num_hidden_layers"], "n_heads": c["num_attention_heads"], "n_kv_heads": c["num_key_value_heads"],
            "vocab_size": c["vocab_size"], "multiple_of": 8, "norm_eps": c["rms_norm_eps"], "rope_theta": 500000.0}


def save_lora(out, name, dtype, *, adapter_only=False, safe=True, show="base", special=""):
    """A LoRA recipe's save: the merged model and the adapter, or the adapter alone."""
    with tempfile.TemporaryDirectory() as folder:
        base = Base("llama", dtype, folder)
        case = start(out, name, base)
        checkpointer = base.hf_checkpointer(case.source, safe_serialization=safe)
        tune = checkpointer.load_checkpoint()[training.MODEL_KEY]
        c, rank, alpha = base.config, 4, 8
        model = llama3.lora_llama3(["q_proj", "k_proj", "v_proj", "output_proj"], apply_lora_to_mlp=True, vocab_size=c["vocab_size"],
                                   num_layers=c["num_hidden_layers"], num_heads=c["num_attention_heads"], num_kv_heads=c["num_key_value_heads"],
                                   embed_dim=c["hidden_size"], max_seq_len=128, intermediate_dim=c["intermediate_size"], lora_rank=rank, lora_alpha=alpha).to(dtype)
        hf.randomise(model)
        model.load_state_dict(tune, strict=False)
        adapter = {k: v.detach().clone() for k, v in get_adapter_params(model).items()}
        merged = get_merged_lora_ckpt(dict(model.state_dict()), rank=rank, alpha=alpha)
        state = {**state_of(merged), training.ADAPTER_KEY: adapter,
                 training.ADAPTER_CONFIG: {"r": rank, "lora_alpha": alpha, "target_modules": ["q_proj", "k_proj", "v_proj", "output_proj", "w1", "w2", "w3"], "peft_type": "LORA"}}
        peft = convert_weights.tune_to_peft_adapter_weights(dict(adapter), num_heads=c["num_attention_heads"], num_kv_heads=c["num_key_value_heads"], dim=c["hidden_size"])
        reference = to_hf(base, merged)
        checkpointer.save_checkpoint(state, epoch=0, intermediate_checkpoint=False, adapter_only=adapter_only)
        where = dict(source=EPOCH, config_from=None if NEW else "config", special=special)
        if show == "adapter":
            case.done(peft, by="torchtune's tune_to_peft_adapter_weights", args=["--adapter"], **where)
        elif adapter_only:
            case.done(peft, by="torchtune's tune_to_peft_adapter_weights", **where)
        else:
            case.done(reference, by="torchtune's get_merged_lora_ckpt and tune_to_hf", **where)


def save_distributed(rank, folder, file, mesh_shape):
    from torchtune.training import DistributedCheckpointer
    mesh = init_device_mesh("cpu", mesh_shape)
    placements = [Replicate()] * (len(mesh_shape) - 1) + [Shard(0)]
    tensors = {k: distribute_tensor(v, mesh, placements) for k, v in torch.load(file).items()}
    moments = {"state": {k: {"exp_avg": v, "step": torch.tensor(3.0)} for k, v in tensors.items()}, "param_groups": [{"lr": 1e-3}]}
    DistributedCheckpointer(checkpoint_dir=folder, output_dir=folder).save_checkpoint({**state_of(tensors), training.OPT_KEY: moments}, epoch=0)


def distributed(out, name, family, dtype, mesh, special=""):
    with tempfile.TemporaryDirectory() as folder:
        base = Base(family, dtype, folder)
        case = start(out, name, base)
        tune = base.tune()
        torch.save(tune, f"{folder}/tune.pt")
        world = torch.Size(mesh).numel()
        ranks.run(world, save_distributed, str(case.source), f"{folder}/tune.pt", mesh)
        case.done(to_hf(base, tune), by=f"torchtune {VERSION} tune_to_hf of what was saved", source="source/dist_epoch_0", special=special)


def new(out):
    f32, bf16 = torch.float32, torch.bfloat16
    save_hf(out, "hf-sharded-f32", "llama", f32, shards="150KB", special="epoch_0, five shards and an index")
    save_hf(out, "hf-bin-bf16", "qwen2", bf16, shards="150KB", safe=False, epoch=1, special="epoch_1, .bin shards: the index has the name of the safetensors one's")
    save_hf(out, "hf-gemma2", "gemma2", f32, special="the 0.6.1 norm pairing, exported")
    for family in FAMILIES:
        save_tune(out, f"tune-{family}-f32", family, f32, special="torchtune keys")
    for family in ("mistral", "phi3", "gemma2"):
        save_tune(out, f"tune-{family}-bf16", family, bf16, with_config=False, special="torchtune keys, config from outside")
    save_tune(out, "tune-qwen2-tied", "qwen2", f32, tie_word_embeddings=True, special="tied: no output.weight")
    save_tune(out, "tune-llama-tied", "llama", bf16, model_type="LLAMA3_2", tie_word_embeddings=True, special="tied: no output.weight")
    reward = dict(model_type="REWARD", cls=AutoModelForSequenceClassification, num_labels=1)
    for family, changes in (("llama", {}), ("mistral", dict(head_dim=16))):
        save_tune(out, f"tune-reward-{family}", family, f32, special="torchtune keys of a reward model", **reward, **changes)
    save_meta(out, "meta-f32", f32, special="Meta keys under model-00001-of-00001.bin")
    save_meta(out, "meta-tied-bf16", bf16, tied=True, special="tied, Meta keys")
    save_lora(out, "lora-merged", f32, special="merged base beside the adapter")
    save_lora(out, "lora-adapter", f32, show="adapter", special="the adapter of a full save")
    save_lora(out, "lora-adapter-only", bf16, adapter_only=True, special="adapter_only save, shown as an adapter")
    save_lora(out, "lora-adapter-bin", f32, safe=False, show="adapter", special="adapter_model.bin")
    distributed(out, "dcp-llama-w2", "llama", f32, (2,), special="one file per item")
    distributed(out, "dcp-qwen2-w3-bf16", "qwen2", bf16, (3,), special="uneven")
    distributed(out, "dcp-gemma2-hsdp-2x2", "gemma2", f32, (2, 2), special="HSDP")


def old(out):
    f32, bf16 = torch.float32, torch.bfloat16
    save_hf(out, "hf-pt-f32", "llama", f32, shards="150KB", safe=False, special="hf_model_0001_0.pt, flat in the output folder")
    save_hf(out, "hf-pt-epoch3-bf16", "mistral", bf16, shards="150KB", safe=False, epoch=3, special="hf_model_0001_3.pt")
    save_hf(out, "hf-safetensors-qwen2", "qwen2", f32, shards="150KB", special="model-00001-of-00005_0.safetensors, no index")
    for family in ("llama", "gemma", "phi3"):
        save_tune(out, f"tune-{family}-f32", family, f32, special="torchtune_model_0.pt")
    save_meta(out, "meta-bf16", bf16, special="meta_model_0.pt")
    save_lora(out, "lora-merged", f32, safe=False, special="hf_model_0001_0.pt beside adapter_0.pt and adapter_model.bin")
    save_lora(out, "lora-adapter", bf16, safe=False, show="adapter", special="adapter_model.bin")


def middle(out):
    f32, bf16 = torch.float32, torch.bfloat16
    save_hf(out, "hf-sharded-f32", "llama", f32, shards="150KB", special="epoch_0/ft-model-0000i-of-0000N.safetensors")
    save_hf(out, "hf-bin-bf16", "mistral", bf16, shards="150KB", safe=False, epoch=2, special="epoch_2/ft-model-*.bin")
    save_tune(out, "tune-qwen2-f32", "qwen2", f32, special="torchtune keys")
    save_meta(out, "meta-f32", f32, special="Meta keys")
    save_lora(out, "lora-merged", f32, special="merged base beside the adapter")
    save_lora(out, "lora-adapter", f32, show="adapter", special="the adapter of a full save")


if __name__ == "__main__":
    {"0.6": new, "0.5": middle}.get(VERSION[:3], old)(sys.argv[1])
