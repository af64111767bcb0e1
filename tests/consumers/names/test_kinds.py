"""What stands around models in real saves: heads, states of trainings, folders of runs, files of any name; and what is refused."""

import json
import shlex
import shutil
import subprocess
import sys

import pytest

import models
from mounts import BINARY, mounted, refusal
from processes import python, run
from tensors import assert_equal_bitwise, from_torch, tensors_of
from test_states import below, beside, copy_of, dcp_save, matrix, torch_save


def said(source, *args):
    """What a view says of itself: names, warnings, remarks."""
    done = subprocess.run([BINARY, "inspect", source, "--json", *args], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def warnings_of(report):
    return [note["text"] for note in report["notes"] if note["is_warning"]]


def with_config(reference, folder, **changes):
    """config.json of a model with other values."""
    folder.mkdir(exist_ok=True)
    config = json.loads((reference / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}, indent=2))
    return folder


@pytest.mark.parametrize("architecture", ["RewardModel", "LlamaForRewardModel", "AutoModelForTokenClassificationWithHead"])
@pytest.mark.parametrize("saves", ["bin", "dcp", "safetensors"])
def test_a_classifiers_head_is_shown_under_a_class_that_transformers_does_not_know(made, architecture, saves, tmp_path):
    model, reference = made("llama-classifier")
    config = with_config(reference, tmp_path / "config", architectures=[architecture])
    source = tmp_path / "source"
    source.mkdir()
    if saves == "safetensors":
        shutil.copy(reference / "model.safetensors", source)
    else:
        (torch_save if saves == "bin" else dcp_save)(dict(model.state_dict()), source)
    with mounted(source, "--config-from", config) as shown:
        assert_equal_bitwise(tensors_of(shown), tensors_of(reference))
        assert (shown / "config.json").read_bytes() == (config / "config.json").read_bytes()


@pytest.mark.parametrize("name", ["llama", "qwen3-moe", "bert-classifier", "t5", "gemma2-tied"])
def test_a_wrapper_before_the_name_of_a_class_goes_and_nothing_else(made, name, tmp_path):
    model, reference = made(name)
    own = json.loads((reference / "config.json").read_text())["architectures"][0]
    text = (reference / "config.json").read_text().replace(f'"{own}"', f'"FSDP{own}"')
    (tmp_path / "config.json").write_text(text.replace('"architectures"', '"scale": Infinity,\n  "odd": NaN,\n  "architectures"'))
    torch_save(dict(model.state_dict()), tmp_path, "pytorch_model.bin")
    with mounted(tmp_path) as shown:
        assert_equal_bitwise(tensors_of(shown), tensors_of(reference))
        assert (shown / "config.json").read_text() == (tmp_path / "config.json").read_text().replace(f'"FSDP{own}"', f'"{own}"')


@pytest.mark.parametrize("name", ["llama", "bert-classifier", "t5", "gemma2-tied"])
@pytest.mark.parametrize("above", ["", "pretrained_model."])
def test_keep_extra_shows_the_heads_that_wrappers_add(made, name, above, tmp_path):
    model, reference = made(name)
    head = {"v_head.summary.weight": matrix(), "v_head.summary.bias": beside()}
    torch_save({**below(model.state_dict(), above), **head}, tmp_path)
    report = said(tmp_path, "--config-from", reference)
    assert any("v_head.summary" in text and "--keep-extra" in text for text in warnings_of(report))
    with mounted(tmp_path, "--config-from", reference, "--keep-extra") as shown:
        assert_equal_bitwise(tensors_of(shown), {**tensors_of(reference), **from_torch(head)})


@pytest.mark.parametrize("name", ["llama", "bert-classifier", "t5", "qwen3-moe"])
def test_another_entry_of_a_state_is_shown_by_its_name(made, name, tmp_path):
    _, reference = made(name)
    ema = models.other(name)
    with models.quiet():
        ema.save_pretrained(tmp_path / "ema")
    source = tmp_path / "source"
    source.mkdir()
    dcp_save({"model": dict(made(name)[0].state_dict()), "callbacks": {"EMA": {"shadow": dict(ema.state_dict())}}, "train_state": {"step": beside(1)}}, source)
    report = said(source, "--config-from", reference)
    assert not any("train_state" in text for text in warnings_of(report))
    entries = {entry["name"]: entry["is_shown"] for entry in report["entries"]}
    assert entries.pop("model") and entries and not any(entries.values())
    with mounted(source, "--config-from", reference, "--entry", "callbacks.EMA.shadow") as shown:
        assert_equal_bitwise(tensors_of(shown), tensors_of(tmp_path / "ema"))


def rng_state():
    import torch

    return torch.get_rng_state()


# What trainings keep beside the weights, none of which is a checkpoint.
STATES = {
    "train_state.pt": lambda: {"step": 3, "loss": beside(1)},
    "rng.pt": lambda: {"cpu": rng_state(), "cuda": [rng_state()]},
    "dl_state_dict.bin": lambda: {"_snapshot": {"_snapshot_step": 4, "sampler": rng_state()}},
    "train_dataloader.pt": lambda: {"order": rng_state().long()},
    "step_scheduler.pt": lambda: {"last_epoch": 4, "base_lrs": [1e-3]},
    "latest_train_state.pt": lambda: {"consumed": beside(1)},
    "scaler.pt": lambda: {"scale": 65536.0, "growth_tracker": 0},
    "random_states_0.pkl": lambda: {"random_state": (3, (1, 2), None), "torch_manual_seed": rng_state()},
    "optimizer.pt": lambda: {"state": {0: {"exp_avg": matrix(), "exp_avg_sq": matrix()}}, "param_groups": [{"lr": 1e-3}]},
    "training_args.bin": lambda: {"lr": 1e-3},
}


def test_what_a_rank_keeps_beside_its_model_is_named(tmp_path):
    (tmp_path / "mp_rank_00").mkdir()
    state = {"checkpoint_version": 3.0, "iteration": 5, "model": {"embed.weight": matrix()}, "rng_state": [{"torch": rng_state()}]}
    torch_save(state, tmp_path / "mp_rank_00", "model_optim_rng.pt")
    (tmp_path / "config.json").write_text('{"model_type": "free"}')
    report = said(tmp_path)
    assert [tensor["name"] for tensor in report["tensors"]] == ["embed.weight"]
    assert any("rng_state" in note["text"] for note in report["notes"])


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.pt", "dcp", "model.safetensors"])
def test_states_of_trainings_beside_the_weights_are_no_checkpoints(made, weights, tmp_path):
    model, reference = made("bert-classifier")
    for file, state in STATES.items():
        torch_save(state(), tmp_path, file)
    if weights == "dcp":
        dcp_save({"model": dict(model.state_dict())}, tmp_path)
    elif weights == "model.safetensors":
        shutil.copy(reference / weights, tmp_path)
    else:
        torch_save(dict(model.state_dict()), tmp_path, weights)
    with mounted(tmp_path, "--config-from", reference) as shown:
        assert_equal_bitwise(tensors_of(shown), tensors_of(reference))


@pytest.mark.parametrize("file", ["last.pth.tar", "weights.pkl", "best.ckpt", "model.th", "step_100", "net.params", "model.weights", "snapshot.torch"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_files_of_any_name_are_told_by_their_first_bytes(made, file, is_zip, tmp_path):
    model, reference = made("bert-mlm")
    torch_save({"state_dict": dict(model.state_dict()), "epoch": 2}, tmp_path, file, _use_new_zipfile_serialization=is_zip)
    for source in (tmp_path / file, tmp_path):
        with mounted(source, "--config-from", reference) as shown:
            assert_equal_bitwise(tensors_of(shown), tensors_of(reference))


OTHERS = {
    "litgpt": ["transformer.h.0.attn.qkv.weight", "transformer.h.0.mlp.fc.weight", "transformer.wte.weight", "lm_head.weight"],
    "torchtune": ["layers.0.sa_norm.scale", "layers.0.attn.q_proj.weight", "tok_embeddings.weight", "norm.scale"],
    "nanotron": ["model.decoder.0.pp_block.attn.qkv_proj.weight", "model.token_position_embeddings.pp_block.token_embedding.weight"],
    "megatron": ["decoder.layers.0.self_attention.linear_qkv.weight", "decoder.layers.0.mlp.linear_fc1.weight", "embedding.word_embeddings.weight"],
    "meta": ["layers.0.attention.wq.weight", "layers.0.feed_forward.w1.weight", "tok_embeddings.weight", "norm.weight", "output.weight"],
}


@pytest.mark.parametrize("system", OTHERS)
@pytest.mark.parametrize("name", ["bert-classifier", "t5", "whisper", "vit"])
@pytest.mark.parametrize("above", ["", "model."])
def test_names_of_another_system_are_refused_by_its_name(made, system, name, above, tmp_path):
    _, reference = made(name)
    torch_save({f"{above}{own}": matrix() for own in OTHERS[system]}, tmp_path)
    line = refusal(tmp_path, "--config-from", reference)
    assert system in line or system == "meta" and "torchtitan" in line, line


def test_code_of_its_own_passes_with_a_warning_that_the_family_silences(tmp_path):
    state = {f"model.layers.{i}.{end}.weight": matrix() for i in range(2) for end in ("self_attn.q_proj", "mlp.up_proj", "dream_norm")}
    state |= {"model.embed_tokens.weight": matrix(), "lm_head.weight": matrix()}
    config = {"model_type": "Dream", "architectures": ["DreamModel"], "auto_map": {"AutoModel": "modeling_dream.DreamModel"}}
    torch_save(state, tmp_path, "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = said(tmp_path)
    assert sorted(tensor["name"] for tensor in report["tensors"]) == sorted(state)
    assert any("Dream" in text and "--family Dream" in text for text in warnings_of(report))
    assert not warnings_of(said(tmp_path, "--family", "Dream"))
    assert "zzz" in refusal(tmp_path, "--family", "zzz")


def test_slices_of_a_flat_parameter_are_refused_with_what_to_do(made, tmp_path):
    import torch

    _, reference = made("llama")
    for rank in range(2):
        torch_save({"model.layers.0._flat_param": torch.rand(64), "_flat_param": torch.rand(99)}, tmp_path, f"model.rank_{rank}.pth")
    line = refusal(tmp_path, "--config-from", reference)
    assert all(word in line for word in ("flat parameter", "LOCAL_STATE_DICT", "SHARDED_STATE_DICT")), line
    assert "--mapping" not in line


def test_a_compressed_dcp_is_refused_with_a_command_that_rewrites_it(made, tmp_path):
    """No part of a compressed stream can be read without all before it, so that a read in the middle of a tensor has no bound."""
    model, reference = made("bert-classifier")
    torch_save(dict(model.state_dict()), tmp_path, "plain.bin")
    source, interpreter = tmp_path / "compressed", python("zstd")
    run("names/write_compressed.py", tmp_path / "plain.bin", source, environment="zstd")
    line = refusal(source, "--config-from", reference)
    assert "stream.zstd" in line
    name, *words = shlex.split(line.split("rewrite it with: ")[1])
    assert name == "python"
    subprocess.run([interpreter, *words], check=True, cwd=tmp_path, timeout=300)
    with mounted(tmp_path / "model.pt", "--config-from", reference) as shown:
        assert_equal_bitwise(tensors_of(shown), tensors_of(reference))


def test_integer_keys_of_storages_are_read(made, tmp_path):
    """litgpt's incremental saves count their storages."""
    import zipfile

    model, reference = made("bert-classifier")
    torch_save(dict(model.state_dict()), tmp_path, "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as source:
        parts = {name: source.read(name) for name in source.namelist()}
    data = next(name for name in parts if name.endswith("data.pkl"))

    text = parts[data]
    keys = sorted({name.rsplit("/", 1)[1] for name in parts if "/data/" in name}, key=int)
    for key in sorted(keys, key=len, reverse=True):
        # BINUNICODE of the key becomes BININT.
        old = b"X" + len(key).to_bytes(4, "little") + key.encode()
        text = text.replace(old, b"J" + int(key).to_bytes(4, "little"))
    parts[data] = text
    with zipfile.ZipFile(tmp_path / "lit_model.pth", "w", zipfile.ZIP_STORED) as out:
        for name, content in parts.items():
            out.writestr(name, content)
    (tmp_path / "plain.pt").unlink()
    with mounted(tmp_path / "lit_model.pth", "--config-from", reference) as shown:
        assert_equal_bitwise(tensors_of(shown), tensors_of(reference))


@pytest.mark.parametrize("inner", ["policy", "actor", "actor/dcp_checkpoint", "trainer", "."])
def test_runs_of_trainers_of_policies_show_the_policy(made, inner, tmp_path):
    """SkyRL's and RLinf's folders, with states of the training and links beside the saves."""
    model, reference = made("llama")
    for step in (5, 10):
        save = tmp_path / f"global_step_{step}"
        (save / inner).mkdir(parents=True)
        dcp_save({"fsdp_checkpoint": {"model": dict(model.state_dict()), "optimizers": {"state": {"w": {"exp_avg": matrix()}}}}} if "dcp" in inner else {"model": dict(model.state_dict())}, save / inner)
        torch_save({"step": step, "rng": rng_state()}, save, "trainer_state.pt")
        torch_save({"sampler": rng_state()}, save, "data.pt")
    (tmp_path / "latest_ckpt_global_step.txt").write_text("10")
    (tmp_path / "LATEST").symlink_to("global_step_10")
    for source in (tmp_path / "global_step_10", tmp_path / "LATEST"):
        with mounted(source, "--config-from", reference) as shown:
            assert_equal_bitwise(tensors_of(shown), tensors_of(reference))
    with mounted(tmp_path, "--config-from", reference) as shown:
        assert sorted(each.name for each in shown.iterdir()) == ["global_step_10", "global_step_5", "latest"]
        assert_equal_bitwise(tensors_of(shown / "latest"), tensors_of(reference))
