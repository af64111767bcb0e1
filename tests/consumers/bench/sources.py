"""The checkpoints of first_forward.py: one Llama of 1.1 billion parameters, saved by each system's own code where that is a package.

    sources.py ready|titan|verl|meta FOLDER

`ready` comes first: it makes the model, FOLDER/f32, and the bf16 copy that the others are compared with.
"""
import json
import pathlib
import shutil
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1] / part) for part in ("", "systems")]

SHAPE = {"hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632,
         "vocab_size": 32000, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "architectures": ["LlamaForCausalLM"]}
RANKS = 2


def ready(folder):
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))
    model.save_pretrained(folder / "f32")
    model.to(torch.bfloat16).save_pretrained(folder / "ready")


def tensors(folder):
    from safetensors.torch import load_file

    return {name: tensor for file in (folder / "f32").glob("*.safetensors") for name, tensor in load_file(file).items()}


def adapter():
    """torchtitan's own way between its names and Hugging Face's."""
    import torch.nn as nn
    from torchtitan.models import llama3
    from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm

    dim, heads, vocabulary = SHAPE["hidden_size"], SHAPE["num_attention_heads"], SHAPE["vocab_size"]
    weight = {"weight": nn.init.normal_}
    layers = llama3._build_llama3_layers(
        n_layers=SHAPE["num_hidden_layers"], dim=dim, n_heads=heads, n_kv_heads=SHAPE["num_key_value_heads"],
        hidden_dim=SHAPE["intermediate_size"], fuse_qkv=False, attn_backend="flex",
        rope=ComplexRoPE.Config(dim=dim // heads, max_seq_len=128, theta=10000))
    config = llama3.Llama3Model.Config(
        dim=dim, vocab_size=vocabulary, layers=layers,
        tok_embeddings=Embedding.Config(num_embeddings=vocabulary, embedding_dim=dim, param_init=weight),
        norm=RMSNorm.Config(normalized_shape=dim, param_init=weight),
        lm_head=Linear.Config(in_features=dim, out_features=vocabulary, param_init=weight))
    return llama3.Llama3StateDictAdapter(config, None)


def titan(folder):
    import ranks

    state = adapter().from_hf(tensors(folder))
    ranks.run(RANKS, save_sharded, state, folder / "titan", seconds=600)


def save_sharded(_, state, out):
    """As FSDP leaves it: every tensor's rows over all ranks."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (RANKS,))
    dcp.save({name: distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None) for name, tensor in state.items()}, checkpoint_id=out)


def verl(folder):
    import ranks
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "f32", dtype="float32")
    ranks.run(RANKS, save_actor, model, folder / "verl", seconds=600)


def save_actor(_, model, out):
    from gen_verl import tokenizer, wrap
    from omegaconf import OmegaConf
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    settings = OmegaConf.create({"save_contents": ["model"], "load_contents": ["model"]})
    manager = FSDPCheckpointManager(wrap(model, {"mesh": (RANKS,)}), None, None, processing_class=tokenizer(), checkpoint_config=settings)
    manager.save_checkpoint(str(out), global_step=1)


def meta(folder):
    import torch
    from gen_meta import meta_state, params_of

    out = folder / "meta"
    out.mkdir()
    state = meta_state(tensors(folder), SHAPE["hidden_size"] // SHAPE["num_attention_heads"])
    torch.save({name: tensor.bfloat16() for name, tensor in state.items()}, out / "consolidated.00.pth")
    params = params_of(SHAPE, n_kv_heads=SHAPE["num_key_value_heads"], multiple_of=256, ffn_dim_multiplier=None)
    (out / "params.json").write_text(json.dumps(params))


if __name__ == "__main__":
    system, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    shutil.rmtree(folder / system, ignore_errors=True)
    {"ready": ready, "titan": titan, "verl": verl, "meta": meta}[system](folder)
