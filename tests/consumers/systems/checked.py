"""Runs a generator in its environment, mounts every case it made, compares every tensor bitwise and records the outcome."""
import atexit
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import mounts
import processes
import tensors

MADE = {}
RESULTS = pathlib.Path(os.environ.get("CKPTFS_RESULTS", processes.ROOT / "target" / "systems.json"))


def generate(script, *args, environment="base"):
    """The folder with the cases that systems/SCRIPT writes, made once a session; a generator that writes none has failed."""
    key = (script, environment)
    if key not in MADE:
        out = pathlib.Path(tempfile.mkdtemp(prefix="ckptfs-cases-"))
        atexit.register(shutil.rmtree, out, ignore_errors=True)
        processes.run(f"systems/{script}", out, *args, environment=environment, timeout=1500)
        MADE[key] = out
    assert list(MADE[key].glob("*/case.json")), f"{script} wrote no case"
    return MADE[key]


def cases(folder):
    return sorted(path.parent for path in folder.glob("*/case.json"))


def check(folder, subtests):
    for case in cases(folder):
        with subtests.test(msg=case.name):
            spec = json.loads((case / "case.json").read_text())
            result = "failed"
            try:
                compare(case, spec)
                result = "equal"
            finally:
                record(case.name, spec, result)


def compare(case, spec):
    with mounts.mounted(case / spec["source"], *arguments(case, spec)) as point:
        tensors.assert_equal_bitwise(shown(point), parsed(case / "reference.safetensors"))
        if "expect_config" in spec:
            assert_config(json.loads((point / "config.json").read_text()), spec["expect_config"])
    if has_run(case, spec):
        rest(case / "source")
        with mounts.mounted(case / "source", *arguments(case, spec)) as point:
            tensors.assert_equal_bitwise(shown(point / "latest"), parsed(case / "reference.safetensors"))
    if "also" in spec:
        with mounts.mounted(case / spec["source"], *arguments(case, spec), *spec["also"]["args"]) as point:
            tensors.assert_equal_bitwise(shown(point), parsed(case / spec["also"]["reference"]))


def has_run(case, spec):
    """Whether the checkpoint is a numbered folder of a run, as its system writes it, and nothing else that lies beside it there."""
    if (case / spec["source"] / "adapter_model").is_dir():
        return False  # A step of an adapter alone, in a folder of its own, is looked at by itself.
    return re.match(r"source/(checkpoints?/)?(\w*(step|epoch|iter)[_-])?\d+(/(?!adapter)[^.]*)?$", spec["source"])


def rest(run):
    """Files that nothing marks as complete count as such when nobody has written for ten seconds."""
    then = time.time() - 60
    for path in [run, *run.rglob("*")]:
        if path.stat().st_mtime > then:
            os.utime(path, (then, then))


def arguments(case, spec):
    return [*spec["args"], *(["--config-from", case / spec["config_from"]] if spec["config_from"] else [])]


def shown(point):
    """A model directory's tensors, or an adapter directory's."""
    adapter = point / "adapter_model.safetensors"
    if not adapter.exists():
        return tensors.tensors_of(point)
    assert json.loads((point / "adapter_config.json").read_text())["peft_type"] == "LORA"
    return parsed(adapter)


def parsed(path):
    return tensors.parse(path.read_bytes())[1]


def assert_config(config, expected):
    """A derived config.json: transformers 4 and 5 write the rope's numbers in different places."""
    rope = config.get("rope_parameters") or {}
    flat = {**rope, **config}
    scaling = config.get("rope_scaling") or {key: value for key, value in rope.items() if key != "rope_theta"}
    for key, value in expected.items():
        found = {name: scaling.get(name) for name in value} if key == "rope_scaling" else flat.get(key)
        assert found == value, f"config.json: {key} is {found}, expected {value}"


def refused(case):
    """The one line with which a mistake is refused, checked for the words that make it useful."""
    spec = json.loads((case / "refuse.json").read_text())
    result = "failed"
    try:
        line = mounts.refusal(case / spec["source"], *arguments(case, spec)).lower()
        for word in spec["words"]:
            choices = [word] if isinstance(word, str) else word
            assert any(choice.lower() in line for choice in choices), f"none of {choices} in: {line}"
        result = "refused"
    finally:
        record(case.name, {**spec, "mistake": True}, result)


def record(name, spec, result):
    """One JSON object per case name; a later run of the same case replaces it."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = ("system", "family", "versions", "reference_by", "notes", "mistake")
    results[name] = {key: spec[key] for key in kept if key in spec} | {"result": result}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def warnings_of(case):
    """What a mount says on stderr while it succeeds."""
    spec = json.loads((case / "case.json").read_text())
    with tempfile.TemporaryDirectory(prefix="ckptfs-") as point:
        command = [mounts.BINARY, "mount", case / spec["source"], point, "--daemon", *arguments(case, spec)]
        try:
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stderr
        finally:
            subprocess.run([mounts.BINARY, "umount", point], check=True, timeout=60)
