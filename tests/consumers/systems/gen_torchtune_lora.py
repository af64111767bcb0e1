"""torchtune's adapters in its own keys, from its own checkpointers, where no file in PEFT's keys lies beside them.

    gen_torchtune_lora.py OUT        (torchtune 0.6.1, 0.5.0 or 0.3.1)

The reference is tune_to_peft_adapter_weights where that is right. It is wrong twice: it un-interleaves the q and k adapters of Qwen2,
whose q and k torchtune does not interleave, and leaves DoRA's magnitudes in torchtune's order; it knows no phi3. There the reference
is what the base's own converter does to a weight with the same rows.
"""
import sys
import tempfile

import torch

import hf
from gen_torchtune import EPOCH, NEW, VERSION, Base, convert_weights, start, state_of, to_hf, training
from torchtune.modules.peft import get_adapter_params, get_merged_lora_ckpt
from torchtune.training import FullModelMetaCheckpointer, FullModelTorchTuneCheckpointer

RANK, ALPHA = 4, 8
ATTENTION = ["q_proj", "k_proj", "v_proj", "output_proj"]
SHOWN = ["--adapter", "--lora-alpha", str(ALPHA)]


def builder(family):
    """torchtune's LoRA model of a family, whose builders take the same sizes."""
    from torchtune.models.gemma import _component_builders as gemma
    from torchtune.models.llama3 import _component_builders as llama3
    from torchtune.models.phi3 import _component_builders as phi3
    from torchtune.models.qwen2 import _component_builders as qwen2
    return {"llama": llama3.lora_llama3, "qwen2": qwen2.lora_qwen2, "phi3": phi3.lora_phi3, "gemma": gemma.lora_gemma}[family]


def trained(base, targets, mlp=True, **more):
    """The model of a LoRA recipe with random adapters."""
    c = base.config
    if base.family == "gemma":
        more.update(head_dim=c["head_dim"], norm_eps=1e-6)
    model = builder(base.family)(targets, apply_lora_to_mlp=mlp, vocab_size=c["vocab_size"], num_layers=c["num_hidden_layers"],
                                 num_heads=c["num_attention_heads"], num_kv_heads=c["num_key_value_heads"], embed_dim=c["hidden_size"], max_seq_len=128,
                                 intermediate_dim=c["intermediate_size"], lora_rank=RANK, lora_alpha=ALPHA, **more).to(base.tensors["model.norm.weight"].dtype)
    hf.randomise(model)
    model.load_state_dict(base.tune(), strict=False)
    return model


def to_peft(base, adapter):
    c = base.config
    return convert_weights.tune_to_peft_adapter_weights(dict(adapter), num_heads=c["num_attention_heads"], num_kv_heads=c["num_key_value_heads"],
                                                        dim=c["hidden_size"], head_dim=c.get("head_dim"))


def by_the_bases_rows(base, adapter):
    """Every lora_b and magnitude through the base's own converter, as columns of a weight with those rows; lora_a as it is."""
    probe = base.tune()
    out = {}
    for name, value in adapter.items():
        module, part = name.replace(".weight", "").rsplit(".", 1)
        weight = probe[f"{module}.weight"]
        rows = part in ("lora_b", "magnitude")
        padded = torch.zeros_like(weight)
        if rows:
            columns = value.reshape(len(value), -1)
            padded[:, : columns.shape[1]] = columns
        converted = to_hf(base, {**probe, f"{module}.weight": padded})
        theirs = next(k for k, v in to_hf(base, {k: torch.full_like(v, k == f"{module}.weight") for k, v in probe.items()}).items() if v.any())
        value = converted[theirs][:, : columns.shape[1]].reshape(value.shape) if rows else value
        ending = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "magnitude": "lora_magnitude_vector"}[part]
        out[f"base_model.model.{theirs.removesuffix('.weight')}.{ending}"] = value
    return out


def save(out, name, family, dtype, targets, *, checkpointer, source=EPOCH, mlp=True, own_path=False, special="", refused=None, changes={}, **more):
    """An adapter_only save of a LoRA recipe."""
    with tempfile.TemporaryDirectory() as folder:
        base = Base(family, dtype, folder, **changes)
        case = start(out, f"lora-{name}", base)
        adapter = {k: v.detach().clone() for k, v in get_adapter_params(trained(base, targets, mlp, **more)).items()}
        state = {**state_of({}), training.ADAPTER_KEY: adapter}
        checkpointer(base, case).save_checkpoint({**state}, epoch=0, intermediate_checkpoint=False, adapter_only=True)
        where = dict(source=source, config_from="config", args=SHOWN, special=special)
        if refused:
            return case.refused(refused, **where)
        reference = by_the_bases_rows(base, adapter) if own_path else to_peft(base, adapter)
        by = "the base's converter applied to each adapter's rows" if own_path else f"torchtune {VERSION} tune_to_peft_adapter_weights"
        case.done(reference, by=by, **where)


def torchtunes(base, case):
    torch.save(base.tune(), base.folder / "start.pt")
    return FullModelTorchTuneCheckpointer(str(base.folder), ["start.pt"], base.kind, str(case.source))


def metas(base, case):
    torch.save(convert_weights.tune_to_meta(base.tune()), base.folder / "consolidated.00.pth")
    return FullModelMetaCheckpointer(str(base.folder), ["consolidated.00.pth"], base.kind, str(case.source))


def huggingfaces(base, case):
    checkpointer = base.hf_checkpointer(case.source)
    checkpointer.load_checkpoint()
    return checkpointer


def distributed(out, name, *, show, special):
    """The state dict of a LoRA model as an asynchronous save leaves it: base and adapter in one DCP folder."""
    from torchtune.training import DistributedCheckpointer
    with tempfile.TemporaryDirectory() as folder:
        base = Base("llama", torch.float32, folder)
        case = start(out, f"lora-{name}", base)
        model = trained(base, ATTENTION)
        DistributedCheckpointer(str(case.source), str(case.source)).save_checkpoint(state_of(model.state_dict()), epoch=0)
        adapter = dict(get_adapter_params(model))
        own = {k: v for k, v in model.state_dict().items() if k not in adapter}
        where = dict(source="source/dist_epoch_0", special=special)
        if show == "adapter":
            case.done(to_peft(base, adapter), by=f"torchtune {VERSION} tune_to_peft_adapter_weights", args=SHOWN, **where)
        else:
            case.done(to_hf(base, own), by=f"torchtune {VERSION} tune_to_hf", **where)


def main(out):
    f32, bf16 = torch.float32, torch.bfloat16
    own = dict(checkpointer=torchtunes, special="adapter_model.pt alone, torchtune's keys" if NEW else "adapter_0.pt alone, torchtune's keys")
    save(out, "own-llama", "llama", f32, ATTENTION, **own)
    save(out, "own-gemma-bf16", "gemma", bf16, ["q_proj", "v_proj"], **own)
    save(out, "own-meta", "llama", bf16, ["k_proj"], checkpointer=metas, mlp=False, special="saved by the Meta checkpointer")
    file = "adapter_model.pt" if NEW else "adapter_0.pt"
    save(out, "own-qwen2", "qwen2", f32, ATTENTION, checkpointer=huggingfaces, source=f"{EPOCH}/{file}", own_path=True,
         special=f"{file} named: PEFT's file beside it has q and k permuted, which their base has not")
    equal = dict(num_key_value_heads=6)  # before 0.6 torchtune cut phi3's qkv_proj in three equal parts
    save(out, "phi3", "phi3", f32, ["output_proj"], changes=equal, checkpointer=huggingfaces, mlp=False, own_path=True, special="an adapter of a weight that phi3 does not fuse")
    save(out, "phi3-fused", "phi3", f32, ["q_proj"], changes=equal, checkpointer=huggingfaces, mlp=False, refused=["q_proj", "lora"], special="an adapter of a part of qkv_proj")
    if VERSION.startswith("0.6"):
        save(out, "dora", "llama", f32, ATTENTION, checkpointer=torchtunes, own_path=True, use_dora=True, special="DoRA: magnitudes follow their rows")
        distributed(out, "dcp-base", show="base", special="LoRA model in one DCP folder, shown as its base")
        distributed(out, "dcp-adapter", show="adapter", special="LoRA model in one DCP folder, shown as its adapter")


if __name__ == "__main__":
    main(sys.argv[1])
