"""verl 0.9.1 FSDP checkpoints from its own FSDPCheckpointManager, on gloo.

    gen_verl.py OUT

The reference is the Hugging Face model that was sharded, in its own dtype; verl's FSDPModelMerger, which always casts to bf16, makes the
second reference (--dtype bf16), and the two are compared first. Where the merger refuses (tensor parallel) or fails (adapter-only,
missing fsdp_config.json) the case says so.
"""
import contextlib
import os
import pathlib
import sys
import tempfile

import torch
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, PreTrainedTokenizerFast

import hf
import ranks
from case import Case, own, same
from verl.model_merger.base_model_merger import ModelMergerConfig
from verl.model_merger.fsdp_model_merger import FSDPModelMerger
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

PACKAGES = ("torch", "verl", "transformers", "peft")
LORA = dict(r=4, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], task_type="CAUSAL_LM")


def build(family, dtype, options, changes):
    head = AutoModelForTokenClassification if options.get("critic") else AutoModelForCausalLM
    made = hf.model(hf.config(family, **changes, **({"num_labels": 1} if options.get("critic") else {})), dtype, cls=head)
    made.config.architectures = [type(made).__name__]
    if options.get("lora"):
        made = get_peft_model(made, LoraConfig(**LORA))
        torch.manual_seed(3)
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.data = (torch.randn(parameter.shape) * 0.1).to(dtype)
    return made


def split_tensors(model, mesh):
    """Tensor parallelism as a user of transformers applies it: columns, then rows."""
    for layer in model.model.layers:
        parallelize_module(layer, mesh, {"self_attn.q_proj": ColwiseParallel(), "self_attn.k_proj": ColwiseParallel(), "self_attn.v_proj": ColwiseParallel(),
                                         "self_attn.o_proj": RowwiseParallel(), "mlp.gate_proj": ColwiseParallel(), "mlp.up_proj": ColwiseParallel(),
                                         "mlp.down_proj": RowwiseParallel()})
    parallelize_module(model, mesh, {"lm_head": ColwiseParallel()})


def wrap(model, options):
    shape, names = options["mesh"], options.get("names", ("fsdp",))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    if options.get("plain"):
        return model
    if options.get("fsdp1"):
        model.register_forward_pre_hook(lambda *_: None)
        return FullyShardedDataParallel(model, device_mesh=mesh, device_id=torch.device("cpu"), use_orig_params=True)
    if "tp" in names:
        split_tensors(model, mesh["tp"])
        mesh = mesh["fsdp"]
    base = model.get_base_model() if options.get("lora") else model
    kept = {p for n, p in model.named_parameters() if n.endswith(options.get("replicated", "\0"))}
    for layer in base.model.layers:
        fully_shard(layer, mesh=mesh, ignored_params={p for p in layer.parameters() if p in kept})
    fully_shard(model, mesh=mesh, ignored_params=kept)
    return model


def tokenizer():
    words = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def train_and_save(rank, folder, family, dtype, options, changes):
    model = wrap(build(family, dtype, options, changes), options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    contents = ["model", "optimizer", "extra"]
    settings = OmegaConf.create({"save_contents": contents, "load_contents": contents, "save_lora_only": bool(options.get("lora_only"))})
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    manager = FSDPCheckpointManager(model, optimizer, scheduler, processing_class=tokenizer(), checkpoint_config=settings)
    manager.save_checkpoint(str(folder), global_step=10)


def merged(actor):
    """What verl's own merger writes: the model's tensors and the adapter's."""
    with tempfile.TemporaryDirectory() as target, open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        FSDPModelMerger(ModelMergerConfig("merge", "fsdp", target, local_dir=str(actor), hf_model_config_path=str(actor / "huggingface"))).merge_and_save()
        tensors, adapter = {}, {}
        for file in pathlib.Path(target).rglob("*.safetensors"):
            into = adapter if file.parent.name == "lora_adapter" else tensors
            into.update({k: v.clone() for k, v in load_file(file).items()})
        return tensors, adapter


def cast(tensors):
    return {k: v.bfloat16() for k, v in tensors.items()}


def expected(family, dtype, options, changes):
    """The model's tensors as save_pretrained names them, and the adapter's as PEFT names them."""
    made = build(family, dtype, options, changes)
    adapter = {k.replace(".default", ""): own(v) for k, v in made.state_dict().items() if "lora_" in k}
    base = build(family, dtype, {**options, "lora": False}, changes)
    return *hf.saved(made.merge_and_unload() if options.get("merged") else base), adapter


def one(out, name, family="llama", dtype=torch.float32, *, role="actor", show="model", merger=True, keep_config=True, special="", options=None, args=(), **changes):
    options = {"mesh": (2,), **(options or {})}
    case = Case(out, f"verl-{name}", system="verl", family=family, packages=PACKAGES)
    actor = case.source / "global_step_10" / role
    actor.parent.mkdir(parents=True)
    ranks.run(torch.Size(options["mesh"]).numel(), train_and_save, actor, family, dtype, options, changes)
    (case.source / "latest_checkpointed_iteration.txt").write_text("10")
    tensors, config, adapter = expected(family, dtype, options, changes)
    case.config(config)
    reference = adapter if show == "adapter" else tensors
    by, second = "the model that was sharded", None
    if merger:
        theirs = merged(actor)[show == "adapter"]
        same(theirs, cast(reference))
        second = (["--dtype", "bf16"], theirs, "verl.model_merger.FSDPModelMerger")
        by += ", whose bf16 cast is what verl's FSDPModelMerger writes"
    else:
        by += "; PEFT's merge_and_unload of it" if options.get("merged") else "; verl's FSDPModelMerger cannot read this checkpoint"
    if not keep_config:
        (actor / "fsdp_config.json").unlink()
    where = dict(source=f"source/global_step_10/{role}", config_from=None, special=special)
    case.done(reference, by=by, args=args, cast=second if dtype != torch.bfloat16 else None, **where)


def main(out):
    f32, bf16 = torch.float32, torch.bfloat16
    for world in (1, 2, 3, 4, 8):
        one(out, f"fsdp2-w{world}", dtype=f32 if world != 4 else bf16, options={"mesh": (world,)}, special=f"{world} ranks, uneven rows" + (", empty shards" if world == 8 else ""),
            num_key_value_heads=3 if world != 8 else 6)
    one(out, "fsdp2-w5-empty", vocab_size=17, hidden_size=24, num_attention_heads=3, num_key_value_heads=1, intermediate_size=6, options={"mesh": (5,)}, special="ranks with no rows at all")
    one(out, "fsdp1-w2", options={"mesh": (2,), "fsdp1": True}, special="FSDP1 with a device mesh")
    one(out, "plain-w1", "qwen2", bf16, options={"mesh": (1,), "plain": True}, special="one process, plain tensors")
    one(out, "hsdp-2x2", "qwen2", options={"mesh": (2, 2), "names": ("ddp", "fsdp")}, special="HSDP, first replica")
    one(out, "hsdp-2x3-bf16", "qwen3", bf16, options={"mesh": (2, 3), "names": ("ddp", "fsdp")}, special="HSDP, uneven", head_dim=32)
    tp = {"mesh": (2, 2), "names": ("fsdp", "tp")}
    one(out, "tp-2x2", options=tp, merger=False, special="FSDP2 over TP: _StridedShard", vocab_size=258)
    one(out, "tp-3x2-uneven", "qwen3", options={**tp, "mesh": (3, 2)}, merger=False, special="FSDP2 over TP, rows do not divide", head_dim=32, vocab_size=262, num_attention_heads=4, num_key_value_heads=2)
    one(out, "replicated-w3", options={"mesh": (3,), "replicated": "norm.weight"}, special="plain replicated tensors kept once")
    one(out, "no-fsdp-config-w2", keep_config=False, special="no fsdp_config.json: the world size is in the file names")
    one(out, "tied-w2", "qwen2", tie_word_embeddings=True, special="tied: both names in the files")
    one(out, "critic-w2", "llama", role="critic", options={"critic": True}, special="score.weight and score.bias")
    one(out, "critic-w3-bf16", "qwen2", bf16, role="critic", options={"critic": True, "mesh": (3,)}, special="one output row over three ranks")
    one(out, "lora-base-w2", options={"lora": True}, special="LoRA save shown as its base")
    one(out, "lora-adapter-w2", options={"lora": True}, show="adapter", args=["--adapter"], special="LoRA save shown as its adapter")
    one(out, "lora-adapter-w3-bf16", "qwen2", bf16, options={"lora": True, "mesh": (3,)}, show="adapter", args=["--adapter"], special="uneven adapter rows")
    own = dict(merger=False, args=["--merge", "own"], special="a save of base and adapter, merged")
    one(out, "lora-merged-w2", options={"lora": True, "merged": True}, **own)
    one(out, "lora-merged-w3", "qwen2", options={"lora": True, "merged": True, "mesh": (3,)}, **own)
    one(out, "lora-only-w2", options={"lora": True, "lora_only": True}, show="adapter", merger=False, special="adapter-only save shown as one")
    one(out, "qwen3moe-w2", "qwen3_moe", special="experts fused in memory, per expert for Hugging Face", head_dim=32, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=44)
    one(out, "mixtral-w3-bf16", "mixtral", bf16, options={"mesh": (3,)}, special="experts fused in memory", num_local_experts=4)


if __name__ == "__main__":
    main(sys.argv[1])
