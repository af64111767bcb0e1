"""States as trainings save them, by real saves of torch: what is mounted has save_pretrained's names and the model's bytes."""

import pytest

import models
from mounts import mounted
from tensors import assert_equal_bitwise, tensors_of


def below(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def inside(state, at, wrapper):
    """The names with a component put in after the first `at`."""
    parts = {name: name.split(".") for name in state}
    return {".".join([*parts[name][:at], wrapper, *parts[name][at:]]): tensor for name, tensor in state.items()}


def torch_save(state, folder, file="checkpoint.pt", **how):
    import torch

    torch.save(state, folder / file, **how)


def dcp_save(state, folder):
    import torch.distributed.checkpoint as dcp

    dcp.save(state, checkpoint_id=folder, no_dist=True)


def beside(n=3):
    import torch

    return torch.rand(n) + 1


def matrix():
    import torch

    return torch.rand(4, 4)


def copy_of(name):
    return models.other(name).state_dict()


def lightning(state, attribute="model."):
    """Lightning's file: its module's state, in which losses and metrics stand beside the model."""
    own = {**below(state, attribute), "criterion.weight": beside(), "val_f1.confmat": matrix(), "class_weights": beside()}
    return {"epoch": 1, "global_step": 5, "pytorch-lightning_version": "2.6.6", "state_dict": own, "loops": {}, "lr_schedulers": [{"last_epoch": 1}]}


def rotary(state):
    """The buffers that older versions saved."""
    layers = [name.rpartition(".")[0] for name in state if name.endswith(("q_proj.weight", "self.query.weight"))]
    more = {f"{layer.rpartition('.')[0]}.rotary_emb.{end}": matrix() for layer in layers for end in ("inv_freq", "cos_cached", "sin_cached")}
    return {**state, **more, **{f"{layer}._extra_state": beside() for layer in layers}}


# What a training makes of a model's state, and where it saves it.
SHAPES = {
    "plain .bin": lambda s, n, f: torch_save(s, f, "pytorch_model.bin"),
    "plain .pt": lambda s, n, f: torch_save(s, f, "model.pt"),
    "legacy .pth.tar": lambda s, n, f: torch_save({"state_dict": s, "epoch": 3}, f, "best.pth.tar", _use_new_zipfile_serialization=False),
    ".pkl": lambda s, n, f: torch_save({"model": s, "args": {"lr": 1e-3}}, f, "last.pkl"),
    "no ending": lambda s, n, f: torch_save({"net": s}, f, "weights"),
    "compiled, in DDP": lambda s, n, f: torch_save({"model": below(s, "module._orig_mod.")}, f),
    "lightning": lambda s, n, f: torch_save(lightning(s), f, "last.ckpt"),
    "lightning, deep": lambda s, n, f: torch_save(lightning(s, "backbone.net.encoder_model."), f, "epoch=1-step=5.ckpt"),
    "model and ema": lambda s, n, f: torch_save({"model": s, "ema": copy_of(n), "step": 7}, f),
    "model.* and ema.*": lambda s, n, f: torch_save({**below(s, "model."), **below(copy_of(n), "ema.")}, f),
    "ema two deep": lambda s, n, f: torch_save({"model": s, "callbacks": {"EMA": {"ema_state": copy_of(n)}}}, f),
    "ema.module.model": lambda s, n, f: torch_save({"state": {**below(s, "model."), **below(copy_of(n), "ema.module.model.")}}, f),
    "averaged beside": lambda s, n, f: torch_save({"state_dict": s, "averaged_model": {"n_averaged": beside(1), "module": copy_of(n)}}, f),
    "_fp32_params in front": lambda s, n, f: torch_save(below(s, "_fp32_params."), f),
    "_fp32_params inside": lambda s, n, f: torch_save(inside(s, 1, "_fp32_params"), f),
    "optimizer beside": lambda s, n, f: torch_save({"model": s, "optimizer": {"state": {0: {"exp_avg": matrix()}}, "param_groups": []}}, f),
    "v_head": lambda s, n, f: torch_save({**s, "v_head.summary.weight": matrix(), "v_head.summary.bias": beside()}, f, "pytorch_model.bin"),
    "pretrained_model and v_head": lambda s, n, f: torch_save({**below(s, "pretrained_model."), "v_head.summary.weight": matrix()}, f, "pytorch_model.bin"),
    "pretrained_model.v_head": lambda s, n, f: torch_save(below({**s, "v_head.summary.weight": matrix()}, "pretrained_model."), f),
    "value_head in DCP": lambda s, n, f: dcp_save({"model": {**s, "value_head.weight": matrix()}}, f),
    "buffers": lambda s, n, f: torch_save(rotary(s), f, "pytorch_model.bin"),
    "DCP": lambda s, n, f: dcp_save(s, f),
    "DCP of app": lambda s, n, f: dcp_save({"app": {"model": s, "step": beside(1)}}, f),
    "DCP, model and ema": lambda s, n, f: dcp_save({"model": s, "ema": copy_of(n), "train_state": {"step": beside(1)}}, f),
    "DCP, model.* and ema.*": lambda s, n, f: dcp_save({**below(s, "model."), **below(copy_of(n), "ema.")}, f),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", models.MODELS)
def test_the_model_of_a_state_is_what_save_pretrained_writes(made, name, shape, tmp_path):
    model, reference = made(name)
    SHAPES[shape](dict(model.state_dict()), name, tmp_path)
    with mounted(tmp_path, "--config-from", reference) as shown:
        assert_equal_bitwise(tensors_of(shown), tensors_of(reference))
        assert (shown / "config.json").read_bytes() == (reference / "config.json").read_bytes()
