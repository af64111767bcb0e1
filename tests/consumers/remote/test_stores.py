"""Real stores show the same bytes as the disk, and real clients read what `serve` answers."""
import contextlib
import os
import subprocess

import pytest

import mounts
from processes import CONSUMERS, ROOT, python
from remote import stores

EXAMPLE = ROOT / "examples" / "torchtitan-llama3"
DATA = ROOT / "tests" / "data"
# A folder of a checkpoint, and whether a store that lists nothing can show it.
CASES = [
    ("titan/checkpoint/step-10", "titan/hf_assets", False),
    ("hf", None, True),
    ("data/hf-bin-sharded", "titan/hf_assets", False),
    ("data/meta-mp2", None, False),
    ("data/verl-fsdp2-w2", None, False),
    ("data/dcp-uneven-w3", None, False),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    subprocess.run(["cp", "-r", EXAMPLE, root / "titan"], check=True)
    subprocess.run(["cp", "-r", DATA, root / "data"], check=True)
    done = exported(root / "titan/checkpoint/step-10", root / "hf", root / "titan/hf_assets", {}, "--max-shard-size", "100KB")
    assert done.returncode == 0, done.stderr
    return root


def exported(source, target, config, variables, *flags):
    command = [mounts.BINARY, "export", source, target, *(["--config-from", config] if config else []), *flags]
    return subprocess.run(list(map(str, command)), env=os.environ | variables, capture_output=True, text=True, timeout=300)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("store", ["seaweedfs", "fake_gcs", "azurite", "web"])
def test_stores_show_the_bytes_of_the_disk(store, root, tmp_path):
    compared = 0
    with getattr(stores, store)(root, tmp_path) as (url, variables):
        for number, (case, config, has_names) in enumerate(CASES):
            if store == "web" and not has_names:
                continue
            here, there = tmp_path / f"here{number}", tmp_path / f"there{number}"
            local = exported(root / case, here, config and root / config, {})
            far = exported(f"{url}/{case}", there, config and f"{url}/{config}", variables)
            assert local.returncode == far.returncode, far.stderr
            if local.returncode == 0:
                assert tree(there) == tree(here), case
                compared += 1
    assert compared >= 1


@contextlib.contextmanager
def served(*arguments):
    command = [mounts.BINARY, "serve", *map(str, arguments), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        yield process.stdout.readline().strip().removeprefix("HF_ENDPOINT=")
    finally:
        process.terminate()
        assert process.wait(60) == 0


def client(environment, script, endpoint, *arguments, scratch):
    variables = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(scratch / "hf"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [python(environment), CONSUMERS / "remote" / script, endpoint, *arguments]
    done = subprocess.run(list(map(str, command)), env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_hubs_clients_read_what_is_served(root, tmp_path):
    source, config = root / "titan/checkpoint", root / "titan/hf_assets"
    here = tmp_path / "here"
    assert exported(source, here, config, {}).returncode == 0
    with served(source, "--config-from", config) as endpoint:
        client("base", "read_hub.py", endpoint, here, scratch=tmp_path)


def test_boto3_reads_what_is_served(root, tmp_path):
    source, config = root / "titan/checkpoint", root / "titan/hf_assets"
    here = tmp_path / "here"
    assert exported(source, here, config, {}).returncode == 0
    with served(source, "--config-from", config) as endpoint:
        client("remote", "read_s3.py", endpoint, here, scratch=tmp_path)


def test_manifests_of_kubernetes_have_the_fields_that_it_knows():
    yaml = pytest.importorskip("yaml")
    for path in sorted((ROOT / "examples" / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            pod = document["spec"].get("template", {}).get("spec") or document["spec"]
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            for container in pod.get("containers", []) + pod.get("initContainers", []):
                assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, path
                if container["image"].startswith("ckptfs"):
                    words = [word for word in container["args"] if word.startswith("--")]
                    listed = subprocess.run([mounts.BINARY, container["args"][0], "--help"], capture_output=True, text=True, check=True)
                    assert all(word.split("=")[0] in listed.stdout for word in words), (path, words)
