"""Three fine-tunes of one tiny model, and what mergekit makes of them: linear with weights and without, task arithmetic in f32."""
import json
import pathlib
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

OUT = pathlib.Path(sys.argv[1])
MODELS = OUT.with_name(OUT.name + "-models")
CONFIG = LlamaConfig(
    vocab_size=160, hidden_size=96, intermediate_size=200, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
MEMBERS = ["base", "math", "code"]


def models():
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIG).to(torch.bfloat16)
    for name in MEMBERS:
        model.save_pretrained(MODELS / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.01)


def merge(name, recipe, args):
    case = OUT / name
    case.mkdir(parents=True)
    (case / "recipe.yaml").write_text(json.dumps(recipe))
    program = "import mergekit.scripts.run_yaml as run; run.main()"
    subprocess.run([sys.executable, "-c", program, case / "recipe.yaml", case / "merged", "--no-copy-tokenizer"], check=True)
    (case / "base").symlink_to(MODELS / "base")
    (case / "args.json").write_text(json.dumps(args))


def member(name, **parameters):
    return {"model": str(MODELS / name), "parameters": parameters}


def main():
    models()
    path = lambda name: str(MODELS / name)
    uniform = [member(name, weight=1) for name in MEMBERS]
    merge(
        "linear-uniform",
        {"merge_method": "linear", "models": uniform},
        ["--average", path("math"), "--average", path("code")],
    )
    weighted = [member(name, weight=weight) for name, weight in zip(MEMBERS, (0.25, 0.5, 0.25))]
    merge(
        "linear-weighted",
        {"merge_method": "linear", "models": weighted, "dtype": "float32", "out_dtype": "bfloat16"},
        ["--average", path("math"), "--average", path("code"), "--weights", "0.25,0.5,0.25"],
    )
    deltas = [member("math", weight=0.6), member("code", weight=-0.4)]
    recipe = {"merge_method": "task_arithmetic", "base_model": path("base"), "models": deltas}
    merge(
        "task-arithmetic",
        recipe | {"dtype": "float32", "out_dtype": "bfloat16"},
        ["--add-delta", path("math") + "=0.6", "--add-delta", path("code") + "=-0.4"],
    )


main()
