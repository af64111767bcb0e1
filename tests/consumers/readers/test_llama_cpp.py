"""llama.cpp's own converter, as the guide calls it: what it makes of a mount is what it makes of the real files."""
import os
import subprocess

import processes
from mounts import mounted

MAKE = """
import io, pathlib, sys, sentencepiece, tiny
folder = pathlib.Path(sys.argv[1])
tiny.model(vocab_size=300).save_pretrained(folder)
words, made = ["the quick brown fox jumps over the lazy dog"] * 50, io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(words), model_writer=made, vocab_size=300, byte_fallback=True, hard_vocab_limit=False, minloglevel=2
)
(folder / "tokenizer.model").write_bytes(made.getvalue())
"""


def test_convert_hf_to_gguf_reads_a_mount(tmp_path):
    python = processes.python("gguf")
    environment = os.environ | {"PYTHONPATH": str(processes.CONSUMERS), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    real = tmp_path / "real"
    real.mkdir()
    subprocess.run([python, "-c", MAKE, real], check=True, env=environment, timeout=300, capture_output=True)

    def converted(folder, name):
        convert = [python.parent / "convert-hf-to-gguf", folder, "--outfile", tmp_path / name, "--model-name", "tiny"]
        subprocess.run(convert, check=True, env=environment, timeout=300, capture_output=True)
        return (tmp_path / name).read_bytes()

    with mounted(real) as view:
        assert converted(view, "view.gguf") == converted(real, "real.gguf")
