"""Checkpoints of DeepSpeed's engine on the CPU: ZeRO-1, 2 and 3.

    gen_deepspeed.py OUT

The reference is DeepSpeed's own zero_to_fp32, or ds_to_universal where that refuses the save. Frozen parameters, which
zero_to_fp32 loses under ZeRO-1, and buffers, which it widens, come from the state dict as they are.
"""
import glob
import logging
import os
import shutil
import sys
import types
import warnings

os.environ.update(DS_ACCELERATOR="cpu", TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")  # the converters before 0.15 load as torch did then
import torch  # noqa: E402

sys.modules.setdefault("mpi4py", types.ModuleType("mpi4py"))
import deepspeed  # noqa: E402
import deepspeed.comm.torch  # noqa: E402
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint  # noqa: E402

import hf  # noqa: E402
import ranks  # noqa: E402
from case import Case  # noqa: E402

warnings.simplefilter("ignore")
sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # gloo does as well, and needs no compiler
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)

VERSION = tuple(int(part) for part in deepspeed.__version__.split(".")[:2])
NARROW = dict(hidden_size=39, num_attention_heads=3, num_key_value_heads=1, head_dim=10, intermediate_size=75, num_hidden_layers=2, vocab_size=203)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "f32": torch.float32}


def groups(model, several):
    """One group, or the usual two: weights, and norms without weight decay."""
    own = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not several:
        return [p for _, p in own]
    plain = [p for n, p in own if "norm" in n]
    return [{"params": [p for n, p in own if "norm" not in n], "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]


def settings(stage, precision, **zero):
    more = {"bf16": {"bf16": {"enabled": True}}, "fp16": {"fp16": {"enabled": True, "initial_scale_power": 4}}, "f32": {}}[precision]
    accumulate = {"data_types": {"grad_accum_dtype": zero.pop("accumulate")}} if "accumulate" in zero else {}
    return {"train_micro_batch_size_per_gpu": 1, "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {"stage": stage, **zero}, **more, **accumulate}


class Module(torch.nn.Module):
    """A model inside of another, as in Lightning's module."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        return self.model(**inputs)


def train(rank, model, config, folder, several, exclude, tag=None):
    os.environ["LOCAL_SIZE"] = os.environ["WORLD_SIZE"]  # else DeepSpeed 0.14 asks numactl for the number of devices
    # DeepSpeed asks for a processor with fp16 of its own, which is faster; torch computes it on any.
    deepspeed.accelerator.get_accelerator().is_fp16_supported = lambda: True
    engine, _, _, _ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(groups(model, several), lr=3e-3), config=config)
    engine.train()
    torch.manual_seed(0 if "tensor_parallel" in config else rank)
    for _ in range(2):
        tokens = torch.randint(3, 200, (1, 8))
        engine.backward(engine(input_ids=tokens, labels=tokens).loss)
        engine.step()
    engine.save_checkpoint(folder, tag=tag, **({"exclude_frozen_parameters": True} if exclude else {}))
    if "tensor_parallel" in config:
        whole = engine._consolidated_16bit_state_dict()
        if rank == 0:
            torch.save({name: tensor.clone() for name, tensor in whole.items()}, f"{folder}/../gathered.pt")


def states(folder):
    file = sorted(glob.glob(f"{folder}/*mp_rank_00_model_states.pt"))[0]
    return torch.load(file, map_location="cpu", weights_only=False)


def converted(source, tag, exclude):
    """What DeepSpeed's converter makes of the save."""
    saved = states(source / tag)
    found = get_fp32_state_dict_from_zero_checkpoint(str(source), tag, exclude_frozen_parameters=exclude)
    found = {name: tensor.contiguous() for name, tensor in found.items()}
    for name, tensor in saved["module"].items():
        if name not in found and not exclude or name in saved["buffer_names"]:
            found[name] = tensor
    return found


def universal(source, tag, convert_alone=False):
    """fp32.pt of each parameter, by ds_to_universal."""
    from deepspeed.checkpoint import ds_to_universal
    arguments = types.SimpleNamespace(input_folder=str(source / tag), output_folder=f"{source / tag}_universal", num_extract_workers=1,
                                      num_merge_workers=1, keep_temp_folder=False, strict=True, inject_missing_state=True)
    ds_to_universal.main(arguments)
    if convert_alone:
        return None
    saved = states(source / tag)
    found = {}
    for name, shape in ((n, s) for group in saved["param_shapes"] for n, s in group.items()):
        value = torch.load(f"{source / tag}_universal/zero/{name}/fp32.pt", weights_only=False)
        found[name] = (value["param"] if isinstance(value, dict) else value).view(shape).clone()
    return found


def tensor_parallel(out, name, stage, *, is_universal=False, special):
    """AutoTP on two ranks. Its 16-bit weights, gathered by the engine, must be the view's cast; the view itself has the masters."""
    shape = dict(hidden_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=10, intermediate_size=76, num_hidden_layers=2, vocab_size=204)
    made = hf.model(hf.config("llama", **shape), torch.float32)
    _, config = hf.saved(made)
    config["dtype"] = "bfloat16"
    case = Case(out, f"deepspeed-{deepspeed.__version__}-{name}", system="deepspeed", family="llama", packages=("torch", "deepspeed", "transformers"))
    case.config(config)
    ranks.run(2, train, made, {**settings(stage, "bf16"), "tensor_parallel": {"autotp_size": 2}}, str(case.source), False, False)
    tag = (case.source / "latest").read_text()
    if is_universal:
        universal(case.source, tag, convert_alone=True)
    gathered = torch.load(case.folder / "gathered.pt")
    (case.folder / "gathered.pt").unlink()
    case.done(gathered, by="the engine's own gathered 16-bit weights", source=f"source/{tag}_universal" if is_universal else "source", args=("--dtype", "bf16"), special=special)


def untied(reference, config):
    """Without the head that a tied config leaves out."""
    return {n: t for n, t in reference.items() if not (config["tie_word_embeddings"] and n == "lm_head.weight")}


def one(out, name, stage, precision, world, *, family="llama", several=False, freeze=None, exclude=False, special="", judge=converted, is_universal=False, tag=None, wrap=False, **more):
    changes = {key: more.pop(key) for key in list(more) if key in ("tie_word_embeddings", "attention_bias")}
    made = hf.model(hf.config(family, **NARROW, **changes), torch.float32)
    _, config = hf.saved(made)
    dtype = DTYPES[precision]
    config["dtype"] = str(dtype).removeprefix("torch.")
    case = Case(out, f"deepspeed-{deepspeed.__version__}-{name}", system="deepspeed", family=family, packages=("torch", "deepspeed", "transformers"))
    case.config(config)
    for parameter_name, parameter in made.named_parameters():
        if freeze and freeze in parameter_name:
            parameter.requires_grad_(False)
    ranks.run(world, train, Module(made) if wrap else made, settings(stage, precision, **more), str(case.source), several, exclude, tag)
    tag = (case.source / "latest").read_text()
    reference = untied(judge(case.source, tag) if judge is universal else judge(case.source, tag, exclude), config)
    reference = {n.removeprefix("model.") if wrap else n: t for n, t in reference.items()}
    cast = {n: t.to(dtype) if t.is_floating_point() else t for n, t in reference.items()}
    if judge is universal and not is_universal:
        shutil.rmtree(case.source / f"{tag}_universal")
    if stage < 3 and precision != "f32" and not exclude:
        module = states(case.source / tag)["module"]
        assert all(torch.equal(module[n], t) for n, t in cast.items()), name
    args = {"bf16": ("--dtype", "bf16"), "fp16": ("--dtype", "f16"), "f32": ("--dtype", "f32")}[precision]
    by = "ds_to_universal" if judge is universal else "zero_to_fp32"
    case.done(reference, by=by, source=f"source/{tag}_universal" if is_universal else "source", special=special, cast=(args, cast, "the same, cast"))


def main(out, *names):
    """All cases, or those with these names."""
    for name, *rest, more in CASES:
        if not names or name in names:
            one(out, name, *rest, **more)
    for name, stage, more in TENSOR_PARALLEL:
        if not names or name in names:
            tensor_parallel(out, name, stage, **more)


CASES = [
    ("z1-bf16", 1, "bf16", 2, dict(special="ZeRO-1")),
    ("z2-bf16-groups", 2, "bf16", 3, dict(several=True, special="two groups, padded to the ranks")),
    ("z2-fp16-frozen", 2, "fp16", 3, dict(freeze="layers.0", special="frozen parameters")),
    ("z1-bf16-frozen", 1, "bf16", 2, dict(freeze="embed_tokens", special="frozen under ZeRO-1")),
    ("z2-f32-robin", 2, "f32", 2, dict(round_robin_gradients=True, special="round robin")),
    ("z3-bf16", 3, "bf16", 2, dict(special="ZeRO-3")),
    ("z3-fp16-groups", 3, "fp16", 3, dict(several=True, sub_group_size=9000, special="sub-groups")),
    ("z3-f32-tied", 3, "f32", 3, dict(family="qwen3", tie_word_embeddings=True, special="tied")),
    ("z3-bf16-frozen", 3, "bf16", 3, dict(freeze="layers.1", special="frozen parameters divided among the ranks")),
    ("z1-bf16-f32-gradients", 1, "bf16", 3, dict(several=True, accumulate="fp32", judge=universal, special="BF16_Optimizer")),
    ("z3-bf16-lightning", 3, "bf16", 2, dict(wrap=True, tag="checkpoint", special="Lightning's folder: the tag checkpoint, a module's prefix")),
    ("z3-bf16-accelerate", 3, "bf16", 2, dict(tag="pytorch_model", special="Accelerate's tag pytorch_model")),
    ("z3-bf16-universal", 3, "bf16", 2, dict(judge=universal, is_universal=True, special="a universal checkpoint")),
]

TENSOR_PARALLEL = [
    ("z0-bf16-autotp", 0, dict(special="AutoTP without ZeRO")),
    ("z1-bf16-autotp", 1, dict(special="AutoTP with ZeRO-1")),
    ("z3-bf16-autotp", 3, dict(special="AutoTP with ZeRO-3")),
    ("z1-bf16-autotp-universal", 1, dict(is_universal=True, special="a universal checkpoint of AutoTP")),
]


if __name__ == "__main__":
    main(*sys.argv[1:])
