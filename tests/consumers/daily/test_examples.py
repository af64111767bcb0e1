"""The scripts in examples/, run as their readers run them."""
import os
import shutil
import subprocess

import peft
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import tiny
from mounts import BINARY
from processes import ROOT, python

EXAMPLES, DATA = ROOT / "examples", ROOT / "tests" / "data"


def run(script, *args):
    """The output of a script, with the program and Python in PATH."""
    path = f"{BINARY.parent}:{python('base').parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([EXAMPLES / script, *args], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_an_actor_of_verl_answers_as_its_own_weights_do(tmp_path):
    actor, case = tmp_path / "actor", DATA / "verl-fsdp2-w2"
    shutil.copytree(case / "source", actor)
    folder = tiny.write_tokenizer(actor / "huggingface", vocab_size=130)
    said = run("verl/generate.sh", actor, "abc")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.load_state_dict(load_file(case / "expected.safetensors"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = model.generate(**tokenizer("abc", return_tensors="pt"), max_new_tokens=16, do_sample=False)
    assert len(tokens[0]) > 3 and said.strip("\n") == tokenizer.decode(tokens[0])


def test_metas_files_are_converted_and_compared(tmp_path):
    case = DATA / "meta-mp2"
    said = run("meta/convert.sh", case / "source", tmp_path / "out")
    wanted, made = load_file(case / "expected.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert f"{len(wanted)} equal, 0 different" in said
    assert wanted.keys() == made.keys()
    assert [name for name in wanted if not torch.equal(wanted[name].bfloat16(), made[name])] == []


def test_a_merged_adapter_is_what_peft_merges(tmp_path):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    out.mkdir()
    tiny.model(dtype="bfloat16").save_pretrained(base)
    torch.manual_seed(1)
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    trained = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    trained.save_pretrained(adapter)
    run("lora-merge/merge.sh", base, adapter, "cp", "-r", "-t", out)
    made = load_file(out / "base" / "model.safetensors")
    wanted = trained.merge_and_unload().state_dict()
    assert wanted.keys() == made.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], made[name])] == []
    before = load_file(base / "model.safetensors")
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], made[name])}
    assert changed == {"q_proj", "down_proj"}


def test_ranks_train_from_a_checkpoint_as_one_process_does(tmp_path):
    model = tiny.model()
    model.save_pretrained(tmp_path / "model")
    tokens = torch.arange(32)[None]
    with torch.no_grad():
        loss = model(tokens, labels=tokens).loss.item()
    for ranks in ("1", "2"):
        said = run("dcp-start/start.sh", tmp_path / "model", ranks)
        (line,) = [line for line in said.splitlines() if line.startswith("loss ")]
        assert abs(float(line.split()[1]) - loss) < 2e-4, (ranks, line, loss)
