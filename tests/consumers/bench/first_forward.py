"""From a torchtitan checkpoint in f32 to the first logits in bf16: mounted, from a ready copy, and converted first.

    first_forward.py FOLDER [--layers 22] [--hidden 2048] [--ffn 5632] [--heads 32] [--kv 4] [--vocabulary 32000] [--rounds 3]

Needs torch, torchtitan 0.3.0 and transformers, and CKPTFS_BINARY or a release build. Each measurement is a process of its own, cold:
the pages of every file in FOLDER are dropped before it. The converter's steps are those of torchtitan's
scripts/checkpoint_conversion/convert_to_hf.py.
"""
import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from mounts import mounted  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    sizes = {"layers": 22, "hidden": 2048, "ffn": 5632, "heads": 32, "kv": 4, "vocabulary": 32000, "rounds": 3}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--step", choices=["make", "load", "convert"], help=argparse.SUPPRESS)
    parser.add_argument("--at", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def titan(args):
    """torchtitan's model and adapter for these sizes."""
    import torch.nn as nn
    from torchtitan.models import llama3
    from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm

    weight = {"weight": nn.init.normal_}
    layers = llama3._build_llama3_layers(
        n_layers=args.layers, dim=args.hidden, n_heads=args.heads, n_kv_heads=args.kv, hidden_dim=args.ffn, fuse_qkv=False,
        attn_backend="flex", rope=ComplexRoPE.Config(dim=args.hidden // args.heads, max_seq_len=128, theta=500000))
    config = llama3.Llama3Model.Config(
        dim=args.hidden, vocab_size=args.vocabulary, layers=layers,
        tok_embeddings=Embedding.Config(num_embeddings=args.vocabulary, embedding_dim=args.hidden, param_init=weight),
        norm=RMSNorm.Config(normalized_shape=args.hidden, param_init=weight),
        lm_head=Linear.Config(in_features=args.hidden, out_features=args.vocabulary, param_init=weight))
    return llama3.Llama3StateDictAdapter(config, None)


def make(args):
    import torch
    import torch.distributed.checkpoint as dcp
    import transformers

    shape = transformers.LlamaConfig(
        hidden_size=args.hidden, intermediate_size=args.ffn, num_hidden_layers=args.layers, num_attention_heads=args.heads,
        num_key_value_heads=args.kv, vocab_size=args.vocabulary, rope_theta=500000.0, dtype="float32",
        architectures=["LlamaForCausalLM"], tie_word_embeddings=False)
    model = transformers.LlamaForCausalLM(shape)
    source = args.folder / "titan"
    dcp.save(titan(args).from_hf(model.state_dict()), checkpoint_id=source)
    shape.save_pretrained(source)
    model.to(torch.bfloat16).save_pretrained(args.folder / "ready", max_shard_size="5GB")


def convert(args):
    """What torchtitan's own script does, in the export type bfloat16."""
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    source = args.folder / "titan"
    metadata = dcp.FileSystemReader(source).read_metadata().state_dict_metadata
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in metadata.items()}
    dcp.load(state, checkpoint_id=source)
    state = {name: tensor.to(torch.bfloat16) for name, tensor in titan(args).to_hf(state).items()}
    writer = HuggingFaceStorageWriter(path=args.at, save_distributed=True, enable_consolidation=True, thread_count_consolidation=2,
                                      fqn_to_index_mapping={name: 1 for name in state})
    dcp.save(state, storage_writer=writer)
    (args.at / "config.json").write_text((source / "config.json").read_text().replace("float32", "bfloat16"))


def load(args):
    """Prints seconds from the import on to the first logits, and their sum."""
    start = time.monotonic()
    import torch
    import transformers

    imported = time.monotonic()
    model = transformers.AutoModelForCausalLM.from_pretrained(args.at, dtype=torch.bfloat16)
    with torch.no_grad():
        logits = model(torch.arange(16)[None]).logits
    end = time.monotonic()
    print(f"{end - start:.3f} {end - imported:.3f} {logits.float().sum().item():.4f}")


def cold(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def step(args, name, at):
    """Runs a step in a fresh interpreter; its output, and the seconds it took."""
    sizes = [f"--{key}={getattr(args, key)}" for key in ("layers", "hidden", "ffn", "heads", "kv", "vocabulary")]
    start = time.monotonic()
    command = [sys.executable, __file__, args.folder, *sizes, "--step", name, "--at", at]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout, time.monotonic() - start


def loaded(args, at):
    total, after_import, checksum = map(float, step(args, "load", at)[0].split())
    return total, after_import, checksum


def main(args):
    if not (args.folder / "ready").exists():
        step(args, "make", args.folder)
    ready, through, sums = [], [], set()
    for _ in range(args.rounds):
        cold(args.folder)
        ready.append(loaded(args, args.folder / "ready"))
        cold(args.folder)
        with mounted(args.folder / "titan", "--dtype", "bf16") as point:
            through.append(loaded(args, point))
    converted = args.folder / "converted"
    cold(args.folder)
    _, seconds = step(args, "convert", converted)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    after = loaded(args, converted)
    sums = {result[2] for result in [*ready, *through, after]}
    median = [statistics.median(result[i] for result in results) for results in (ready, through) for i in (0, 1)]
    print("| to the first logits, cold | seconds | without imports |\n|---|---|---|")
    print(f"| ready bf16 copy | {median[0]:.1f} | {median[1]:.2f} |")
    print(f"| mounted, --dtype bf16 | {median[2]:.1f} | {median[3]:.2f} |")
    print(f"| converted ({seconds:.1f} s, {memory:.1f} GB of memory), then loaded | {seconds + after[0]:.1f} | |")
    print(f"mounted / ready: {median[2] / median[0]:.2f}; logits {'agree' if len(sums) == 1 else f'differ: {sums}'}")


if __name__ == "__main__":
    args = arguments()
    {"make": make, "load": load, "convert": convert, None: main}[args.step](args)
