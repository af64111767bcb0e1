"""make_example.py OUT: the checkpoint that the project carries in examples/torchtitan-llama3.

OUT/checkpoint/step-10 is written by torchtitan 0.3.0 on two processes, OUT/hf_assets is what a user has beside it.
Run it with the base environment's Python.
"""
import pathlib
import sys

import processes
import tiny


def make(out):
    tiny.write_config(out / "hf_assets", num_hidden_layers=2, vocab_size=256)
    tiny.write_tokenizer(out / "hf_assets", vocab_size=256)
    # DCP writes the path it was given into .metadata: a relative one says nothing of this machine
    processes.run("systems/torchtitan_llama3.py", ".", "hf_assets", "model", world=2, cwd=out)


if __name__ == "__main__":
    make(pathlib.Path(sys.argv[1]))
