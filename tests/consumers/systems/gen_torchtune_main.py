"""The folders of torchtune's main branch, which no package holds.

    gen_torchtune_main.py OUT        (torchtune 0.6.1)

Only the names are main's: what lies under them is converted by 0.6.1 and written by huggingface_hub, safetensors and DCP, as main's own
checkpointers call them. A folder has recipe_state.pt among the weights, and an empty folder beside the adapter of the same name.
"""
import json
import shutil
import sys
import tempfile

import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

import gen_torchtune as tune
import gen_torchtune_lora as lora


def one(out, name, write, *, family="llama", folder="step_30", args=(), config_from=None, special=""):
    """`write` fills the checkpoint's folder and returns what a mount shows, and who says so."""
    with tempfile.TemporaryDirectory() as start:
        base = tune.Base(family, torch.bfloat16, start)
        case = tune.start(out, f"main-{name}", base)
        there = case.source / folder
        there.mkdir()
        reference, by = write(base, there)
        torch.save({tune.training.OPT_KEY: {"state": {0: {"exp_avg": torch.zeros(4)}}}, "steps_run": 30}, there / "recipe_state.pt")
        case.done(reference, by=by, source=f"source/{folder}", config_from=config_from, args=args, special=f"{special} (names of the main branch)")


def hugging_face(base, there, tensors=None, safe=True):
    tensors = tensors or base.tensors
    save_torch_state_dict(tensors, there, max_shard_size="150KB", safe_serialization=safe)
    shutil.copy(base.folder / "config.json", there)
    return tensors, "the tensors that were written"


def with_adapter(base, there):
    """The merged model and its adapter in torchtune's keys and in PEFT's."""
    model = lora.trained(base, lora.ATTENTION)
    adapter = tune.get_adapter_params(model)
    (there / "adapter_model").mkdir()
    torch.save(adapter, there / "adapter_model.pt")
    peft = lora.to_peft(base, adapter)
    save_file({k: v.detach().contiguous() for k, v in peft.items()}, there / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"r": lora.RANK, "lora_alpha": lora.ALPHA, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "peft_type": "LORA"}
    (there / "adapter_config.json").write_text(json.dumps(config))
    merged = tune.get_merged_lora_ckpt(dict(model.state_dict()), rank=lora.RANK, alpha=lora.ALPHA)
    return hugging_face(base, there, tune.to_hf(base, merged))[0], peft


def merged(base, there):
    return with_adapter(base, there)[0], f"torchtune {tune.VERSION} get_merged_lora_ckpt and tune_to_hf"


def beside(base, there):
    return with_adapter(base, there)[1], f"torchtune {tune.VERSION} tune_to_peft_adapter_weights"


def distributed(base, there):
    write_dcp(tune.state_of(base.tune()), there)
    return tune.to_hf(base, base.tune()), f"torchtune {tune.VERSION} tune_to_hf"


def distributed_adapter(base, there):
    adapter = dict(tune.get_adapter_params(lora.trained(base, lora.ATTENTION)))
    write_dcp(adapter, there / "adapter_model")
    return lora.to_peft(base, adapter), f"torchtune {tune.VERSION} tune_to_peft_adapter_weights"


def paired_otherwise(base, there):
    """What 0.6.1 calls the norm after the feed-forward layer is main's name of the one before it, and the other way round."""
    other = {"mlp_norm": "mlp_scale", "mlp_scale": "mlp_norm"}
    state = {".".join(other.get(part, part) for part in name.split(".")): value for name, value in base.tune().items()}
    write_dcp(tune.state_of(state), there)
    return base.tensors, "the model that was loaded, whose keys are those of main's models/gemma2/_convert_weights.py"


def write_dcp(state, folder):
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder, single_file_per_rank=False), no_dist=True)


def main(out):
    one(out, "step", hugging_face, special="step_N")
    one(out, "bin", lambda base, there: hugging_face(base, there, safe=False), folder="epoch_0", special="epoch_N/pytorch_model-*.bin")
    one(out, "lora-merged", merged, special="merged base beside the adapter")
    one(out, "lora-adapter", beside, args=["--adapter"], special="the adapter of a full save")
    one(out, "dcp", distributed, config_from="config", special="step_N as DCP, one file per item")
    one(out, "gemma2", paired_otherwise, family="gemma2", config_from="config", args=["--system", "torchtune-main"], special="main's norm pairing, asked for")
    one(out, "dcp-adapter", distributed_adapter, config_from="config", args=lora.SHOWN, special="step_N/adapter_model as DCP")


if __name__ == "__main__":
    main(sys.argv[1])
