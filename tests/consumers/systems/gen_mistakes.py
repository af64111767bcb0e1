"""One mistake per system, made from sound cases: each must be refused in one line that a user can act on.

    gen_mistakes.py CASES OUT [NAME ...]        CASES: what the generators wrote; NAME: only these
"""
import json
import pathlib
import shutil
import sys

import torch

MISTAKES = {}


def mistake(of, words, source=None, config="same", args=None):
    """`of`: the sound case; `words`: what the line must name, a list inside meaning any of them."""
    def register(function):
        MISTAKES[function.__name__.replace("_", "-")] = (function, of, words, source, config, args)
        return function
    return register


def edit(file, change):
    content = torch.load(file, weights_only=False)
    change(content)
    torch.save(content, file)


def set_config(case, **changes):
    for path in [case / "config" / "config.json", *case.glob("source/**/config.json")]:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@mistake("verl-fsdp2-w3", ["model_world_size_3_rank_1.pt"])
def verl_missing_rank(case):
    next(case.glob("source/**/model_world_size_3_rank_1.pt")).unlink()


@mistake("verl-fsdp2-w2", [["world size", "world_size"]])
def verl_two_world_sizes(case):
    for file in case.glob("source/**/model_world_size_2_rank_*.pt"):
        shutil.copy(file, file.with_name(file.name.replace("size_2", "size_4")))


@mistake("verl-fsdp2-w2", ["num_hidden_layers is 4, the tensors have 3"])
def verl_config_with_more_layers(case):
    set_config(case, num_hidden_layers=4)


@mistake("verl-fsdp2-w2", ["vocab_size is 512, "])
def verl_config_with_another_vocabulary(case):
    set_config(case, vocab_size=512)


@mistake("verl-fsdp2-w2", ["model_type is qwen3", "named as those of", "llama"])
def verl_config_of_another_family(case):
    set_config(case, model_type="qwen3", architectures=["Qwen3ForCausalLM"])


@mistake("verl-fsdp2-w2", ["no model_type", "llama", "--family"])
def verl_config_without_a_family(case):
    set_config(case, model_type=None)


@mistake("verl-fsdp2-w2", ["rank_0.pt is of step", "extra_state_world_size_2_rank_1.pt of step", "mixed"])
def verl_ranks_of_two_steps(case):
    edit(next(case.glob("source/**/extra_state_world_size_2_rank_1.pt")), lambda state: state["lr_scheduler"].update(last_epoch=10))


@mistake("verl-replicated-w3", ["model.norm.weight"])
def verl_ranks_that_disagree_in_shape(case):
    edit(next(case.glob("source/**/model_world_size_3_rank_1.pt")), lambda state: state.update({"model.norm.weight": torch.ones(5)}))


@mistake("verl-plain-w1", ["model.layers.0.extra.weight"])
def verl_unknown_weight(case):
    edit(next(case.glob("source/**/model_world_size_1_rank_0.pt")), lambda state: state.update({"model.layers.0.extra.weight": torch.ones(4, 4)}))


@mistake("mcore-verl-v2-llama-tp2", ["__1_0.distcp"])
def megatron_missing_file(case):
    next(case.glob("source/**/__1_0.distcp")).unlink()


@mistake("mcore-verl-v2-llama-tp2", [["num_key_value_heads", "key_value", "linear_qkv", "k_proj"]])
def megatron_config_with_other_groups(case):
    set_config(case, num_key_value_heads=4, num_attention_heads=8, head_dim=12, hidden_size=96)


@mistake("mcore-verl-v2-llama-tp2", ["vocab_size 999", "embedding.word_embeddings.weight"])
def megatron_config_with_a_larger_vocabulary(case):
    set_config(case, vocab_size=999)


@mistake("mcore-verl-v2-llama-tp2", ["num_hidden_layers is 2, the tensors have 3"])
def megatron_config_with_fewer_layers(case):
    set_config(case, num_hidden_layers=2)


@mistake("mcore-verl-v2-qwen3moe-tp2-ep2", ["model_type is llama", "qwen3_moe"])
def megatron_config_of_another_family(case):
    set_config(case, model_type="llama", architectures=["LlamaForCausalLM"])


@mistake("mcore-lm-torchdist-llama-tp2-adam", ["--config-from"], config=None)
def megatron_without_config(case):
    pass


@mistake("mcore-lm-legacy-llama-tp2", [["mp_rank_01", "tensor"]])
def megatron_legacy_missing_rank(case):
    shutil.rmtree(next(case.glob("source/iter_*/mp_rank_01")))


@mistake("mcore-lm-torchdist-llama-tp2-adam", ["num_attention_heads is 4", "says 8"])
def megatron_config_with_other_heads(case):
    set_config(case, num_attention_heads=4, num_key_value_heads=1, head_dim=24)


@mistake("mcore-lm-legacy-llama-tp2", ["mp_rank_00 is of iteration", "mixed"])
def megatron_ranks_of_two_iterations(case):
    edit(next(case.glob("source/iter_*/mp_rank_01/*.pt")), lambda state: state.update(iteration=state["iteration"] + 10))


@mistake("mcore-lm-legacy-llama-tp2", ["rotary_interleaved"])
def megatron_interleaved_rotary(case):
    for file in case.glob("source/iter_*/mp_rank_*/*.pt"):
        edit(file, lambda state: setattr(state["args"], "rotary_interleaved", True))


@mistake("mcore-lm-legacy-llama-tp2", ["1 expert-parallel ranks, where its args say 2, 1 and 2", "incomplete"])
def megatron_ranks_of_experts(case):
    for file in case.glob("source/iter_*/mp_rank_*/*.pt"):
        edit(file, lambda state: setattr(state["args"], "expert_model_parallel_size", 2))


@mistake("tune061-tune-mistral-bf16", ["--config-from"], config=None)
def torchtune_keys_without_config(case):
    pass


@mistake("tune061-hf-sharded-f32", [["model-00002", "missing"]])
def torchtune_missing_shard(case):
    next(case.glob("source/epoch_0/model-00002-*")).unlink()


@mistake("tune031-hf-pt-f32", ["hf_model_0003_0.pt is missing"])
def torchtune_old_missing_shard(case):
    next(case.glob("source/hf_model_0003_0.pt")).unlink()


@mistake("tune031-hf-pt-f32", ["epoch"])
def torchtune_two_epochs_in_one_folder(case):
    for file in list(case.glob("source/hf_model_*_0.pt")):
        shutil.copy(file, file.with_name(file.name.replace("_0.pt", "_1.pt")))


@mistake("tune061-tune-llama-f32", ["layers.1.attn.unknown.weight"])
def torchtune_unknown_weight(case):
    edit(next(case.glob("source/epoch_0/*.bin")), lambda state: state.update({"layers.1.attn.unknown.weight": torch.ones(2)}))


@mistake("tune061-tune-qwen2-f32", [["num_attention_heads", "heads", "hidden_size", "q_proj"]])
def torchtune_config_with_another_width(case):
    set_config(case, hidden_size=48, num_attention_heads=3)


@mistake("tune061-tune-gemma2-f32", ["model_type is llama", "named as those of gemma2"])
def torchtune_config_of_another_family(case):
    set_config(case, model_type="llama", architectures=["LlamaForCausalLM"])


@mistake("lingua-w2-adam-f32", [["n_layers", "layers"]])
def lingua_params_with_more_layers(case):
    path = next(case.glob("source/**/params.json"))
    content = json.loads(path.read_text())
    content["model"]["n_layers"] = 5
    path.write_text(json.dumps(content))


@mistake("lingua-w2-adam-f32", ["__1_0.distcp"])
def lingua_missing_rank(case):
    next(case.glob("source/**/__1_0.distcp")).unlink()


@mistake("meta-llama3-mp4-bf16", [["consolidated.02.pth", "4", "3 "]])
def meta_missing_rank(case):
    (case / "source/consolidated.02.pth").unlink()


@mistake("meta-llama3-mp1-f32", [["params.json", "--config-from"]])
def meta_without_params(case):
    (case / "source/params.json").unlink()


@mistake("meta-llama3-mp1-f32", ["num_attention_heads is 12", "says 6"], config="config")
def meta_config_with_other_heads(case):
    set_config(case, num_attention_heads=12, num_key_value_heads=6, head_dim=8)


@mistake("meta-llama3-mp1-f32", ["layers.1.attention.gate.weight"])
def meta_unknown_weight(case):
    edit(case / "source/consolidated.00.pth", lambda state: state.update({"layers.1.attention.gate.weight": torch.ones(3)}))


@mistake("meta-llama3-mp4-bf16", [["heads", "wk", "n_kv_heads"]])
def meta_params_with_other_heads(case):
    path = case / "source/params.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_kv_heads": 3}))


@mistake("mistral-sharded-f32", ["consolidated-00002-of-00003.safetensors"])
def mistral_missing_shard(case):
    (case / "source/consolidated-00002-of-00003.safetensors").unlink()


@mistake("titan030-qwen3moe-w2", [["expert", "num_experts"]])
def torchtitan_config_with_fewer_experts(case):
    set_config(case, num_experts=4)


@mistake("titan030-deepseekv3-w2", ["num_hidden_layers 2", "eh_proj"])
def torchtitan_config_with_fewer_layers(case):
    set_config(case, num_hidden_layers=2, num_nextn_predict_layers=1)


@mistake("titan030-qwen3moe-w2", ["model_type is mixtral", "qwen3_moe"])
def torchtitan_config_of_another_family(case):
    set_config(case, model_type="mixtral", architectures=["MixtralForCausalLM"])


@mistake("titan030-llama3-w2-adam", ["--config-from"], config=None)
def torchtitan_without_config(case):
    pass


@mistake("accelerate-fsdp2-w2", ["__1_0.distcp"])
def accelerate_missing_rank(case):
    (case / "source/pytorch_model_fsdp_0/__1_0.distcp").unlink()


@mistake("accelerate-fsdp2-w2", ["optimizer_0", "pytorch_model_fsdp_0", "incomplete"], source="source")
def accelerate_without_the_model(case):
    shutil.rmtree(case / "source/pytorch_model_fsdp_0")


@mistake("accelerate-fsdp1-w2-rankfiles", ["1 of 2 ranks", "pytorch_model_fsdp_0_rank1.bin"])
def accelerate_missing_rank_file(case):
    (case / "source/pytorch_model_fsdp_0_rank1.bin").unlink()


@mistake("accelerate-fsdp2-w3-rankfiles", ["1 of 3 ranks", "pytorch_model_fsdp_0_rank0.bin"])
def accelerate_missing_first_rank_file(case):
    (case / "source/pytorch_model_fsdp_0_rank0.bin").unlink()


@mistake("pytorch-fsdp1-shardedtensor-w2", ["model_world_size_2_rank_1.pt"])
def pytorch_missing_rank(case):
    next(case.glob("source/*_rank_1.pt")).unlink()


@mistake("tf-mixtral-bin-bf16", [["num_local_experts", "experts"]])
def transformers_config_with_more_experts(case):
    set_config(case, num_local_experts=4)


@mistake("tf-llama-bin-bf16", [["qwen3", "q_norm"]])
def transformers_config_of_another_family(case):
    set_config(case, model_type="qwen3", architectures=["Qwen3ForCausalLM"])


@mistake("lightning-llama-f32", ["vocab_size is 999, "])
def lightning_config_with_another_vocabulary(case):
    set_config(case, vocab_size=999)


@mistake("lightning-llama-f32", ["--config-from"], config=None)
def lightning_without_config(case):
    pass


def make(cases, out, name):
    function, of, words, source, config, args = MISTAKES[name]
    case = pathlib.Path(out) / name
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(pathlib.Path(cases) / of, case)
    spec = json.loads((case / "case.json").read_text())
    (case / "case.json").unlink()
    for file in case.glob("reference*.safetensors"):
        file.unlink()
    function(case)
    spec = {"system": spec["system"], "source": source or spec["source"], "config_from": spec["config_from"] if config == "same" else config,
            "args": args or spec["args"], "words": words, "made_from": of}
    (case / "refuse.json").write_text(json.dumps(spec, indent=2) + "\n")


def main(cases, out, *names):
    for name in names or MISTAKES:
        make(cases, out, name)
        print("mistake", name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
