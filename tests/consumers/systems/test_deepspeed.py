"""DeepSpeed's ZeRO saves: three versions of its engine, the Hugging Face Trainer's folder, and a model of 7B in sparse files."""
import json
import os
import pathlib
import shutil
import struct
import time

import pytest

import checked
import mounts
import processes
import tensors

OLD = ("z1-bf16", "z2-bf16-groups", "z3-bf16", "z3-bf16-frozen")


def test_saves_of_the_newest_engine_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_deepspeed.py", environment="deepspeed"), subtests)


def test_saves_of_older_engines_equal_what_their_own_converter_makes(subtests):
    for environment in ("deepspeed-017", "deepspeed-014"):
        checked.check(checked.generate("gen_deepspeed.py", *OLD, environment=environment), subtests)


def test_the_trainers_folders_are_checkpoints_and_make_a_run(tmp_path):
    """`checkpoint-N` with config and `latest`: by its own name, by the tag's, and as one of a run; 16-bit weights beside are preferred."""
    made = checked.generate("gen_deepspeed.py", environment="deepspeed") / "deepspeed-0.19.8-z2-bf16-groups"
    reference = checked.parsed(made / "reference.safetensors")
    for step in (2, 4):
        save = tmp_path / f"checkpoint-{step}"
        shutil.copytree(made / "source", save)
        shutil.copy(made / "config" / "config.json", save)
        (save / "trainer_state.json").write_text('{"global_step": 2}')
    (tmp_path / "checkpoint-6" / "global_step6").mkdir(parents=True)  # begun, and without `latest`
    for path in tmp_path.rglob("*"):  # what `latest` names has ended when it has rested
        os.utime(path, times=(path.stat().st_atime, time.time() - 60))
    for source in ("checkpoint-2", "checkpoint-2/global_step2"):
        with mounts.mounted(tmp_path / source) as point:
            tensors.assert_equal_bitwise(checked.shown(point), reference)
    with mounts.mounted(tmp_path) as point:
        assert (point / "latest").resolve().name == "checkpoint-4"
        tensors.assert_equal_bitwise(checked.shown(point / "latest"), reference)
    whole = tmp_path / "checkpoint-2"
    shutil.copy(made / "reference.cast.safetensors", whole / "model.safetensors")
    with mounts.mounted(whole) as point:
        tensors.assert_equal_bitwise(checked.shown(point), checked.parsed(whole / "model.safetensors"))
    with mounts.mounted(whole, "--system", "deepspeed") as point:
        tensors.assert_equal_bitwise(checked.shown(point), reference)
    (whole / "trainer_state.json").write_text('{"global_step": 3}')
    assert "of step 3" in mounts.refusal(whole)


def test_a_large_save_is_mounted_by_its_structure_and_a_layer_read_by_its_bytes(tmp_path):
    save = tmp_path / "checkpoint-1"
    processes.run("systems/sparse_zero3.py", save, environment="base", timeout=600)
    with mounts.mounted(save) as point:
        daemon = next(pid for pid in os.listdir("/proc") if pid.isdigit() and str(point) in command(pid))
        before, count = bytes_read(daemon), 0
        for name, data in layer(point, "model.layers.7."):
            count += len(data)
            if name.endswith("layernorm.weight"):
                assert data == b"".join(struct.pack("<f", index) for index in range(4096))
        assert bytes_read(daemon) - before < 1.1 * count
        peak = next(line for line in pathlib.Path(f"/proc/{daemon}/status").read_text().splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 64 << 10, peak


MISTAKES = {
    "a rank is missing": (lambda save: optimizer(save, 1).unlink(), "rank_1_mp_rank_00_optim_states.pt"),
    "a save of more ranks was there before": (lambda save: shutil.copy(optimizer(save, 1), optimizer(save, 1).with_name(optimizer(save, 1).name.replace("rank_1", "rank_9", 1))), "rank_9_mp_rank_00_optim_states.pt"),
    "a file is cut": (lambda save: os.truncate(optimizer(save, 0), 1000), "rank_0_mp_rank_00_optim_states.pt"),
    "the optimizer was left behind": (lambda save: [file.unlink() for file in save.glob("*_optim_states.pt")], "optim_states"),
    "the tag is of no folder": (lambda save: (save.parent / "latest").write_text("global_step9"), "latest names global_step9"),
    "an expert": (lambda save: (save / "layer_0_expert_0_mp_rank_00_model_states.pt").write_text(""), "expert"),
    "a pipeline": (lambda save: (save / "layer_00-model_states.pt").write_text(""), "pipeline"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_save_is_refused_in_one_line(tmp_path, name):
    made = checked.generate("gen_deepspeed.py", environment="deepspeed")
    change, words = MISTAKES[name]
    for case in ("z2-bf16-groups", "z3-bf16"):
        save = tmp_path / case
        shutil.copytree(next(made.glob(f"*-{case}")) / "source", save)
        change(save / "global_step2")
        assert words in mounts.refusal(save)


def optimizer(save, rank):
    return next(save.glob(f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"))


def command(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def bytes_read(pid):
    return int(pathlib.Path(f"/proc/{pid}/io").read_text().split()[1])


def layer(point, prefix):
    """The names of a layer's tensors and their bytes."""
    weights = json.loads((point / "model.safetensors.index.json").read_text())["weight_map"]
    for name, file in weights.items():
        if name.startswith(prefix):
            with open(point / file, "rb") as shard:
                (length,) = struct.unpack("<Q", shard.read(8))
                start, end = json.loads(shard.read(length))[name]["data_offsets"]
                shard.seek(8 + length + start)
                yield name, shard.read(end - start)
