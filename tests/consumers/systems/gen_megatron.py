"""megatron-core 0.16.1 checkpoints of its own GPTModel, TP x PP x EP on gloo, in the layouts of verl and of Megatron-LM.

    gen_megatron.py OUT

torch_dist folders are written by megatron.core.dist_checkpointing.save. verl's Megatron manager needs CUDA, so its folders are laid out
here as its source does; the older mp_rank files are plain torch.save of each rank's model.state_dict(), as both systems wrote them.
Transformer Engine does not run on CPU: where a name depends on it, the sharded keys are renamed before the save and the case says so.

The reference is the Hugging Face model that was fused, split and loaded; for dense models and MoE verl's own MegatronModelMerger converts
the loaded state too and must agree.
"""
import argparse
import contextlib
import json
import os
import queue
import re
import pathlib
import shutil
import sys
import warnings

import torch

warnings.simplefilter("ignore")
torch.cuda.current_device = lambda: torch.device("cpu")  # dist_checkpointing asks for both
torch.cuda.synchronize = lambda *_: None
torch.Tensor.cuda = lambda self, *_, **__: self  # a tied model on two stages asks for it

from megatron.core import dist_checkpointing, parallel_state  # noqa: E402
from megatron.core.dist_checkpointing.strategies import filesystem_async  # noqa: E402
from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor, ShardedTensorFactory  # noqa: E402
from megatron.core.dist_checkpointing.dict_utils import dict_list_map_inplace  # noqa: E402
from megatron.core.models.gpt import GPTModel  # noqa: E402
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec, get_gpt_layer_local_spec  # noqa: E402
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed  # noqa: E402
from megatron.core.transformer import MLATransformerConfig, TransformerConfig  # noqa: E402
from megatron.core.transformer import multi_latent_attention  # noqa: E402
from megatron.core.transformer.dot_product_attention import DotProductAttention  # noqa: E402
from verl.model_merger.megatron_model_merger import MegatronModelMerger  # noqa: E402

import hf  # noqa: E402
import ranks  # noqa: E402
from case import Case, same  # noqa: E402

filesystem_async._results_queue = queue.Queue()  # a synchronous save needs no process to hold it
PACKAGES = ("torch", "megatron-core", "verl", "transformers")
F32, BF16 = torch.float32, torch.bfloat16


# ---- Hugging Face to megatron-core, whole tensors -------------------------------------------------------------------------------

def fuse_qkv(q, k, v, heads, groups):
    """Rows group by group: the group's query heads, its key head, its value head."""
    d = k.shape[0] // groups
    parts = zip(q.split(heads // groups * d), k.split(d), v.split(d))
    return torch.cat([torch.cat(group) for group in parts])


MIXTRAL = {"block_sparse_moe": "mlp", "w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


def mcore_state(tensors, c):
    tensors = {".".join(MIXTRAL.get(part, part) for part in name.split(".")): value for name, value in tensors.items()}
    heads, groups = c["num_attention_heads"], c["num_key_value_heads"]
    out = {"embedding.word_embeddings.weight": tensors["model.embed_tokens.weight"], "decoder.final_layernorm.weight": tensors["model.norm.weight"]}
    if "lm_head.weight" in tensors:
        out["output_layer.weight"] = tensors["lm_head.weight"]
    for i in range(c["num_hidden_layers"]):
        mine = {k.removeprefix(f"model.layers.{i}."): v for k, v in tensors.items() if k.startswith(f"model.layers.{i}.")}
        here = lambda name: f"decoder.layers.{i}.{name}"  # noqa: E731
        out[here("input_layernorm.weight")] = mine["input_layernorm.weight"]
        out[here("pre_mlp_layernorm.weight")] = mine["post_attention_layernorm.weight"]
        out[here("self_attention.linear_proj.weight")] = mine["self_attn.o_proj.weight"]
        if "self_attn.kv_b_proj.weight" in mine:
            for theirs, name in MLA.items():
                if f"self_attn.{theirs}.weight" in mine:
                    out[here(f"self_attention.{name}.weight")] = mine[f"self_attn.{theirs}.weight"]
        else:
            for kind in ("weight", "bias"):
                if f"self_attn.q_proj.{kind}" in mine:
                    out[here(f"self_attention.linear_qkv.{kind}")] = fuse_qkv(*(mine[f"self_attn.{x}_proj.{kind}"] for x in "qkv"), heads, groups)
            for x in "qk":
                if f"self_attn.{x}_norm.weight" in mine:
                    out[here(f"self_attention.{x}_layernorm.weight")] = mine[f"self_attn.{x}_norm.weight"]
        if "mlp.gate.weight" in mine:
            out[here("mlp.router.weight")] = mine["mlp.gate.weight"]
            if "mlp.gate.e_score_correction_bias" in mine:
                out[here("mlp.router.expert_bias")] = mine["mlp.gate.e_score_correction_bias"]
        for theirs in sorted({k.rsplit(".", 2)[0] for k in mine if k.endswith(".down_proj.weight")}):
            name = theirs.replace("mlp.experts.", "mlp.experts.local_experts.")
            out[here(f"{name}.linear_fc1.weight")] = torch.cat([mine[f"{theirs}.gate_proj.weight"], mine[f"{theirs}.up_proj.weight"]])
            out[here(f"{name}.linear_fc2.weight")] = mine[f"{theirs}.down_proj.weight"]
    return out


MLA = {"q_proj": "linear_q_proj", "q_a_proj": "linear_q_down_proj", "q_a_layernorm": "q_layernorm", "q_b_proj": "linear_q_up_proj",
       "kv_a_proj_with_mqa": "linear_kv_down_proj", "kv_a_layernorm": "kv_layernorm", "kv_b_proj": "linear_kv_up_proj"}


def plain_attention(self, *args, k_channels=None, v_channels=None, **options):
    """MLA asks for head sizes that only Transformer Engine's attention takes; it holds no weights."""
    attention_init(self, *args, **options)


multi_latent_attention.TELinear = type("TELinear", (), {})  # absent, and asked for by isinstance
attention_init = DotProductAttention.__init__
DotProductAttention.__init__ = plain_attention


# ---- the model on one rank --------------------------------------------------------------------------------------------------------

def build(c, tp=1, pp=1, ep=1, etp=1, padded=None, tied=False, bias=False, first=None, virtual=None):
    """The chunks of the model on this rank: one, or one for each virtual stage. `first`: layers on the first stage, where stages are uneven."""
    parallel_state.initialize_model_parallel(tp, pp, virtual, expert_model_parallel_size=ep, expert_tensor_parallel_size=etp)
    moe, mla, qk = c.get("num_experts") or c.get("num_local_experts") or c.get("n_routed_experts"), "kv_lora_rank" in c, c["model_type"].startswith("qwen3")
    more = {"num_layers_in_first_pipeline_stage": first, "virtual_pipeline_model_parallel_size": virtual}
    if moe:
        more.update(num_moe_experts=moe, moe_router_topk=c["num_experts_per_tok"], moe_ffn_hidden_size=c.get("moe_intermediate_size", c["intermediate_size"]), moe_token_dispatcher_type="allgather",
                    moe_grouped_gemm=False, add_bias_linear=False)
    if c.get("n_shared_experts"):
        more.update(moe_shared_expert_intermediate_size=c["moe_intermediate_size"] * c["n_shared_experts"], moe_router_enable_expert_bias=True, moe_router_score_function="sigmoid",
                    moe_router_load_balancing_type="none")
    if c.get("first_k_dense_replace"):
        more["moe_layer_freq"] = [int(i >= c["first_k_dense_replace"]) for i in range(c["num_hidden_layers"])]
    if mla:
        more.update(q_lora_rank=c["q_lora_rank"], kv_lora_rank=c["kv_lora_rank"], qk_head_dim=c["qk_nope_head_dim"], qk_pos_emb_head_dim=c["qk_rope_head_dim"], v_head_dim=c["v_head_dim"], rope_type="rope")
    else:
        more["kv_channels"] = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    config = (MLATransformerConfig if mla else TransformerConfig)(
        num_layers=c["num_hidden_layers"], hidden_size=c["hidden_size"], num_attention_heads=c["num_attention_heads"], num_query_groups=c["num_key_value_heads"],
        ffn_hidden_size=c["intermediate_size"], normalization="RMSNorm", gated_linear_unit=True, activation_func=torch.nn.functional.silu, use_cpu_initialization=True,
        qk_layernorm=qk or mla, add_qkv_bias=bias, tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp, expert_model_parallel_size=ep, expert_tensor_parallel_size=etp,
        pipeline_dtype=torch.get_default_dtype(), params_dtype=torch.get_default_dtype(), add_bias_linear=more.pop("add_bias_linear", False), **more)
    spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False) if "moe_layer_freq" in more else get_gpt_layer_local_spec(moe, False, qk or mla, mla, normalization="RMSNorm")
    def chunk(stage):
        where = dict(ignore_virtual=stage is None, vp_stage=stage)
        return GPTModel(config, spec, padded or c["vocab_size"], 128, parallel_output=True, share_embeddings_and_output_weights=tied, position_embedding_type="none" if mla else "rope",
                        pre_process=parallel_state.is_pipeline_first_stage(**where), post_process=parallel_state.is_pipeline_last_stage(**where), vp_stage=stage)
    return [chunk(stage) for stage in (range(virtual) if virtual else [None])]


def global_name(name, model):
    """A stage's own layer and expert numbers made global."""
    found = re.match(r"decoder\.layers\.(\d+)\.(.*)", name)
    if not found:
        return name
    layer, rest = model.decoder.layers[int(found[1])], found[2]
    expert = re.match(r"mlp\.experts\.local_experts\.(\d+)\.(.*)", rest)
    if expert:
        first = parallel_state.get_expert_model_parallel_rank() * layer.mlp.num_local_experts
        rest = f"mlp.experts.local_experts.{first + int(expert[1])}.{expert[2]}"
    return f"decoder.layers.{layer.layer_number - 1}.{rest}"


def load(model, full, padded):
    """This rank's part of the whole tensors; padding rows are random, to show when they leak."""
    torch.manual_seed(7)
    rank, size = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_tensor_model_parallel_world_size()
    left = dict(model.state_dict(keep_vars=True))
    for name, mine in left.items():
        if mine is None or not isinstance(mine, torch.Tensor) or name.endswith(("_extra_state", "local_tokens_per_expert", "global_tokens_per_expert")):
            continue
        source = global_name(name, model)
        value = full.get(source)
        if value is None and source == "output_layer.weight":
            value = full["embedding.word_embeddings.weight"]  # the tied copy on the last stage
        assert value is not None, f"nothing fills {source}"
        if padded and source in ("embedding.word_embeddings.weight", "output_layer.weight"):
            value = torch.cat([value, torch.randn(padded - value.shape[0], value.shape[1]).to(value.dtype)])
        if mine.shape != value.shape:
            dim = next(d for d in range(mine.dim()) if mine.shape[d] != value.shape[d])
            halves = value.chunk(2) if "linear_fc1" in name else (value,)
            value = torch.cat([h.chunk(size, dim)[rank] for h in halves])
        assert mine.shape == value.shape, f"{name}: {mine.shape} and {value.shape}"
        mine.data.copy_(value)


def train_and_save(rank, save, c, full_file, options):
    torch.set_default_dtype(options.get("dtype", F32))
    parallel = {k: options.get(k, 1) for k in ("tp", "pp", "ep", "etp")}
    more = {k: options.get(k) for k in ("padded", "first", "virtual")}
    chunks = build(c, **parallel, **more, tied=options.get("tied", False), bias=options.get("bias", False))
    for chunk in chunks:
        load(chunk, torch.load(full_file), options.get("padded"))
    save(*chunks)


# ---- the ways to save -------------------------------------------------------------------------------------------------------------

def each(state, change):
    def visit(leaf):
        if isinstance(leaf, (ShardedTensor, ShardedObject, ShardedTensorFactory)):
            change(leaf)
        return leaf
    dict_list_map_inplace(visit, state)


TE_NAMES = (("mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight"), ("self_attention.q_layernorm.weight", "self_attention.linear_q_up_proj.layer_norm_weight"),
            ("self_attention.kv_layernorm.weight", "self_attention.linear_kv_up_proj.layer_norm_weight"))


def torch_dist(folder, *, metadata=None, rename=(), optimizer=False, common=None):
    def save(model, *chunks):
        if torch.distributed.get_rank() == 0:
            os.makedirs(folder, exist_ok=True)
        torch.distributed.barrier()
        state = {f"model{stage}": chunk.sharded_state_dict(metadata=metadata) for stage, chunk in enumerate([model, *chunks])}
        if not chunks:
            state = {"model": state["model0"]}
        def change(leaf):
            for old, new in rename:
                leaf.key = leaf.key.replace(old, new)
        each(state, change)
        if optimizer:
            for moment in ("exp_avg", "exp_avg_sq", "fp32_param"):
                copy = model.sharded_state_dict(metadata=metadata)
                each(copy, lambda leaf: setattr(leaf, "key", f"optimizer.state.{moment}.{leaf.key}"))
                state[moment] = {k: v for k, v in copy.items() if not isinstance(v, ShardedObject)}
        dist_checkpointing.save({**state, **(common or {})}, str(folder))
    return save


def rank_folder(model, expert=False):
    tp, pp = parallel_state.get_tensor_model_parallel_rank(), parallel_state.get_pipeline_model_parallel_rank()
    name = f"mp_rank_{tp:02d}" + (f"_{pp:03d}" if parallel_state.get_pipeline_model_parallel_world_size() > 1 else "")
    ep = parallel_state.get_expert_model_parallel_rank()
    return name + (f"_{ep:03d}" if parallel_state.get_expert_model_parallel_world_size() > 1 else "")


def te_state(model):
    """A rank's own state dict with the names that Transformer Engine's fused modules give the norms."""
    out = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            continue
        name = name.replace(".input_layernorm.weight", ".self_attention.linear_qkv.layer_norm_weight").replace(".pre_mlp_layernorm.weight", ".mlp.linear_fc1.layer_norm_weight")
        out[name] = value.detach().clone()
        if name.endswith("linear_qkv.weight"):
            out[name.replace("weight", "_extra_state")] = None
    return out


def verl_v0(folder):
    """verl of spring 2025: model/mp_rank_TT[_PPP]/model.pt, a list with one state dict per virtual stage."""
    def save(model):
        at = folder / "model" / rank_folder(model)
        at.mkdir(parents=True, exist_ok=True)
        torch.save([te_state(model)], at / "model.pt")
    return save


def namespace(c, options):
    return argparse.Namespace(
        num_layers=c["num_hidden_layers"], hidden_size=c["hidden_size"], num_attention_heads=c["num_attention_heads"], num_query_groups=c["num_key_value_heads"], group_query_attention=True,
        ffn_hidden_size=c["intermediate_size"], swiglu=True, normalization="RMSNorm", padded_vocab_size=options.get("padded") or c["vocab_size"], untie_embeddings_and_output_weights=True,
        tensor_model_parallel_size=options.get("tp", 1), pipeline_model_parallel_size=options.get("pp", 1), expert_model_parallel_size=options.get("ep", 1),
        expert_tensor_parallel_size=options.get("etp", 1), num_experts=c.get("num_experts") or c.get("num_local_experts"), params_dtype=torch.float32, add_bias_linear=False, iteration=10,
        position_embedding_type="rope", rotary_percent=1.0, rotary_base=10000, norm_epsilon=1e-5, use_mcore_models=True)


def megatron_lm(folder, c, options, spec):
    """Megatron-LM's --ckpt-format torch: mcore models with either spec's names, or the older nested language_model."""
    def save(model):
        if options.get("ep", 1) > 1 and parallel_state.get_expert_data_parallel_rank():
            return  # another rank has the same experts, and saves them
        at = folder / "iter_0000010" / rank_folder(model)
        at.mkdir(parents=True, exist_ok=True)
        state = te_state(model) if spec == "te" else {k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
        if spec == "nested":
            state = nested(state)
        if spec == "grouped":
            state = {re.sub(r"local_experts\.(\d+)\.(linear_fc\d)\.weight", r"\2.weight\1", k): v for k, v in state.items()}
        torch.save({"args": namespace(c, options), "checkpoint_version": 3.0, "iteration": 10, "model": state, "optimizer": {"state": {0: torch.zeros(3)}}, "rng_state": [{"np": 1}]}, at / "model_optim_rng.pt")
        (folder / "latest_checkpointed_iteration.txt").write_text("10")
    return save


def nested(state):
    """The names of Megatron-LM before megatron-core: language_model.{embedding,encoder,output_layer}."""
    names = {"self_attention.linear_qkv": "self_attention.query_key_value", "self_attention.linear_proj": "self_attention.dense", "mlp.linear_fc1": "mlp.dense_h_to_4h",
             "mlp.linear_fc2": "mlp.dense_4h_to_h", "input_layernorm": "input_norm", "pre_mlp_layernorm": "post_attention_norm"}
    model = {"language_model": {"encoder": {}}}
    for name, value in state.items():
        where = model["language_model"]
        if name.startswith("embedding."):
            where["embedding"] = {"word_embeddings": {"weight": value}}
        elif name.startswith("output_layer."):
            where["output_layer"] = {"weight": value}
        elif name.startswith("decoder.final_layernorm"):
            where["encoder"]["final_norm.weight"] = value
        else:
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            where["encoder"][name.removeprefix("decoder.")] = value
    return model


# ---- cases ------------------------------------------------------------------------------------------------------------------------

def verl_answer(rank, c, folder, out, tied, padded, metadata, rename, bias):
    """The checkpoint loaded whole by megatron-core, converted by verl's own merger."""
    [model] = build(c, padded=padded, tied=tied, bias=bias)
    state = model.sharded_state_dict(metadata=metadata)
    def change(leaf):
        for old, new in rename:
            leaf.key = leaf.key.replace(old, new)
    each(state, change)
    loaded = dist_checkpointing.load({"model": state}, str(folder))["model"]
    merger = object.__new__(MegatronModelMerger)
    source = open(sys.modules[MegatronModelMerger.__module__].__file__).read()
    table = re.search(r"self\.params_mapping = (\{.*?\n        \})", source, re.S)[1]
    merger.params_mapping, merger.world_size = eval(table), 1
    merger.hf_config = argparse.Namespace(**{**c, "architectures": ["X"]})
    merger.config = argparse.Namespace(tie_word_embedding=tied, is_value_model=False)
    # The merger expects Transformer Engine's names for the experts: linear_fc1.weight7 for expert 7.
    loaded = {re.sub(r"local_experts\.(\d+)\.(linear_fc\d)\.weight$", r"\2.weight\1", k): v for k, v in loaded.items() if isinstance(v, torch.Tensor) and "tokens_per_expert" not in k}
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        torch.save({k: v.clone() for k, v in merger._merge_state_dicts([loaded]).items()}, out)


def one(out, name, family, layout, *, dtype=F32, options=None, special="", source, config_from=None, check=True, metadata=None, rename=(), optimizer=False, system="verl-megatron", **changes):
    options = {"dtype": dtype, **(options or {})}
    cfg = hf.config(family, **changes)
    tensors, c = hf.saved(hf.model(cfg, dtype))
    if options.get("padded"):
        assert options["padded"] > c["vocab_size"]
    case = Case(out, f"mcore-{name}", system=system, family=family, packages=PACKAGES)
    case.config(c)
    full_file = case.folder / "full.pt"
    torch.save(mcore_state(tensors, c), full_file)
    world = options.get("tp", 1) * options.get("pp", 1) * options.get("ep", 1)
    at = case.folder / source
    side, save, dist = None, None, None
    if layout == "v2":
        dist, side = at / "model" / "dist_ckpt", at / "model" / "huggingface"
    elif layout == "v1":
        dist, side = at / "dist_ckpt", at / "huggingface"
    elif layout == "torch_dist":
        dist = at
    elif layout == "v0":
        save, side = verl_v0(at), at / options.get("side", "huggingface")
    else:
        save = megatron_lm(case.source, c, options, layout)
    if dist:
        common = {"args": namespace(c, options), "iteration": 10} if layout == "torch_dist" else {}
        save = torch_dist(dist, metadata=metadata, rename=rename, optimizer=optimizer, common=common)
    ranks.run(world, train_and_save, save, c, full_file, options)
    if side:
        side.mkdir(parents=True)
        (side / "config.json").write_text(json.dumps(c, indent=2))
    if layout == "v2":
        (at / "ckpt_contents.json").write_text(json.dumps({"schema_version": 2, "framework": "megatron", "contents": {"model": {"path": "model/dist_ckpt", "format": "megatron_dist_checkpoint"}}}))
    by = "the Hugging Face model that was fused and split"
    if dist and check:
        theirs = case.folder / "theirs.pt"
        torch.set_default_dtype(dtype)
        ranks.run(1, verl_answer, c, dist, theirs, options.get("tied", False), options.get("padded"), metadata, rename, options.get("bias", False))
        torch.set_default_dtype(F32)
        merged = torch.load(theirs)
        os.remove(theirs)
        for key in ("model.embed_tokens.weight", "lm_head.weight"):
            if key in merged:
                merged[key] = merged[key][:c["vocab_size"]]  # the merger leaves the padding to transformers
        same(merged, tensors)
        by += "; verl's MegatronModelMerger, given the same checkpoint, agrees"
    os.remove(full_file)
    case.done(tensors, by=by, source=source, config_from=config_from, special=special)


def interleave(folder, stages=2):
    """One rank's file as virtual pipeline stages leave it: model0, model1 in each rank, layers counted from 0 in each. Megatron needs
    a schedule on GPUs to build such a model, so the tensors of its file are dealt out as parallel_state and checkpointing.py do."""
    file = folder / "mp_rank_00" / "model_optim_rng.pt"
    whole = torch.load(file, weights_only=False)
    shutil.rmtree(file.parent)
    layers = whole["args"].num_layers
    whole["args"].pipeline_model_parallel_size, whole["args"].virtual_pipeline_model_parallel_size = stages, layers // stages
    model = whole.pop("model")
    for rank in range(stages):
        chunks = {f"model{v}": chunk(model, v * stages + rank, layers) for v in range(layers // stages)}
        at = folder / f"mp_rank_00_{rank:03}"
        at.mkdir()
        torch.save({**whole, **chunks}, at / file.name)


def chunk(model, layer, layers):
    own = {k.replace(f"layers.{layer}.", "layers.0."): v for k, v in model.items() if f".layers.{layer}." in k}
    ends = {0: ("embedding.",), layers - 1: ("decoder.final_layernorm.", "output_layer.")}.get(layer, ())
    return own | {k: v for k, v in model.items() if k.startswith(ends)}


def main(out):
    actor = "source/global_step_10/actor"
    moe = dict(head_dim=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=44)
    even = dict(num_attention_heads=8, num_key_value_heads=2, vocab_size=260)
    numbered, single = {"non_homogeneous_layers": True}, {"singleton_local_shards": True}
    one(out, "verl-v2-llama-tp2", "llama", "v2", source=actor, options={"tp": 2}, special="layer axis, TP2", **even)
    one(out, "verl-v2-qwen2-tp2-pp2-padded", "qwen2", "v2", source=actor, dtype=BF16, options={"tp": 2, "pp": 2, "padded": 320, "bias": True}, special="layer axis, qkv bias, padded vocabulary, TP2 x PP2", num_hidden_layers=4, **{**even, "vocab_size": 263})
    one(out, "verl-v1-qwen3-tp2-numbered", "qwen3", "v1", source=actor, options={"tp": 2, "padded": 384}, metadata=numbered, special="v1 layout, numbered keys, q/k norms", head_dim=32, **{**even, "vocab_size": 257})
    one(out, "verl-v2-llama-tied-pp2", "llama", "v2", source=actor, options={"pp": 2, "tied": True}, special="tied, no output_layer key", num_hidden_layers=4, tie_word_embeddings=True)
    one(out, "verl-v2-llama-tp2-single", "llama", "v2", source=actor, options={"tp": 2}, metadata=single, special="_w/_v pairs, numbered keys", **even)
    one(out, "verl-v2-qwen3moe-tp2-ep2", "qwen3_moe", "v2", source=actor, options={"tp": 2, "ep": 2}, special="layer and expert axes, TP2 x EP2", **{**even, **moe})
    one(out, "verl-v2-qwen3moe-ep2-numbered-te", "qwen3_moe", "v2", source=actor, dtype=BF16, options={"ep": 2, "padded": 320}, metadata=numbered, rename=TE_NAMES[:1],
        special="numbered keys, expert axis, pre_mlp_layernorm as with Transformer Engine, padded vocabulary", **moe)
    one(out, "verl-v1-qwen3moe-ep2-single", "qwen3_moe", "v1", source=actor, options={"ep": 2}, metadata=single, special="one key per expert, _w/_v pairs", **moe)
    mixtral = dict(even, head_dim=32, num_local_experts=4, num_experts_per_tok=2)
    one(out, "verl-v2-mixtral-tp2-ep2", "mixtral", "v2", source=actor, options={"tp": 2, "ep": 2}, special="layer and expert axes, TP2 x EP2", check=False, **mixtral)
    one(out, "verl-v1-mixtral-ep2-single", "mixtral", "v1", source=actor, dtype=BF16, options={"ep": 2}, metadata=single, special="one key per expert, _w/_v pairs", check=False, **mixtral)
    one(out, "verl-v2-deepseekv3-tp2", "deepseek_v3", "v2", source=actor, options={"tp": 2}, rename=TE_NAMES[1:], special="MLA under TP2", check=False, **{**hf.MLA, "vocab_size": 260})
    one(out, "verl-v2-deepseekv3-ep2-te", "deepseek_v3", "v2", source=actor, options={"ep": 2}, rename=TE_NAMES[1:], special="MLA, dense then MoE layers, shared experts, expert bias; Transformer Engine's norm names", check=False, **hf.MLA)
    one(out, "verl-v0-llama-tp2", "llama", "v0", source=actor, options={"tp": 2, "padded": 320}, special="mp_rank_TT/model.pt, Transformer Engine's norm names", **even)
    one(out, "verl-v0-qwen2-tp2-pp2", "qwen2", "v0", source=actor, dtype=BF16, options={"tp": 2, "pp": 2, "bias": True, "side": "hf_config_and_tokenizer"}, special="mp_rank_TT_PPP/model.pt, stage-local layer numbers, config in hf_config_and_tokenizer", num_hidden_layers=4, **even)
    lm = dict(system="megatron-lm", config_from="config")
    one(out, "lm-torchdist-llama-tp2-adam", "llama", "torch_dist", source="source/iter_0000010", options={"tp": 2, "padded": 320}, optimizer=True, special="torch_dist with optimizer keys and common.pt", **lm, **even)
    uneven, virtual = {"pp": 2, "first": 1}, {"pp": 2, "virtual": 2}
    one(out, "lm-torchdist-llama-uneven", "llama", "torch_dist", source="source/iter_0000010", options=uneven, special="torch_dist, layer axis, stages of 1 and 3 layers", num_hidden_layers=4, **lm)
    one(out, "lm-torchdist-qwen3-uneven-numbered", "qwen3", "torch_dist", source="source/iter_0000010", options=uneven, metadata=numbered, dtype=BF16, special="torch_dist, numbered keys, stages of 1 and 2 layers", head_dim=32, **lm)
    one(out, "lm-torchdist-qwen2-virtual", "qwen2", "torch_dist", source="source/iter_0000010", options={**virtual, "tp": 2, "bias": True}, special="torch_dist, layer axis, 2 virtual pipeline stages, TP2 x PP2", num_hidden_layers=4, **lm, **even)
    one(out, "lm-torchdist-qwen3moe-virtual-numbered", "qwen3_moe", "torch_dist", source="source/iter_0000010", options=virtual, metadata=numbered, special="torch_dist, numbered keys, 2 virtual pipeline stages, experts", num_hidden_layers=4, **lm, **moe)
    one(out, "lm-torchdist-qwen3moe-ep2", "qwen3_moe", "torch_dist", source="source/iter_0000010", options={"ep": 2}, metadata=numbered, dtype=BF16, special="torch_dist, numbered keys, experts", **lm, **moe)
    one(out, "lm-legacy-llama-tp2", "llama", "local", source="source/iter_0000010", options={"tp": 2, "padded": 320}, special="iter_*/mp_rank_TT, local names", **lm, **even)
    one(out, "lm-legacy-llama-tp2-pp2-te", "llama", "te", source="source/iter_0000010", options={"tp": 2, "pp": 2}, special="iter_*/mp_rank_TT_PPP, Transformer Engine's names", num_hidden_layers=4, **lm, **even)
    one(out, "lm-legacy-llama-tp4-nested", "llama", "nested", source="source/iter_0000010", dtype=BF16, options={"tp": 4}, special="language_model names of Megatron-LM before megatron-core, version 3", **lm, **{**even, "num_key_value_heads": 4})
    one(out, "lm-legacy-qwen2-tp2-nested", "qwen2", "nested", source="source/iter_0000010", options={"tp": 2, "bias": True}, special="language_model names, qkv bias", **lm, **even)
    one(out, "lm-legacy-mixtral-tp2", "mixtral", "local", source="source/iter_0000010", options={"tp": 2, "etp": 2}, special="iter_*/mp_rank_TT, experts split by TP", **lm, **mixtral)
    ranked = dict(source="source/iter_0000010", **lm)
    one(out, "lm-legacy-qwen3moe-ep2", "qwen3_moe", "local", options={"ep": 2, "padded": 320}, special="iter_*/mp_rank_TT_EEE, experts numbered in their rank", **ranked, **moe)
    one(out, "lm-legacy-qwen3moe-tp2-ep2-grouped", "qwen3_moe", "grouped", dtype=BF16, options={"tp": 2, "ep": 2}, special="iter_*/mp_rank_TT_EEE, whole experts under TP2: two files of four; linear_fc1.weightN", **ranked, **{**even, **moe})
    one(out, "lm-legacy-mixtral-tp2-ep2-etp2", "mixtral", "local", options={"tp": 2, "ep": 2, "etp": 2}, special="iter_*/mp_rank_TT_EEE, experts split by TP", **ranked, **mixtral)
    one(out, "lm-legacy-qwen3moe-pp2-ep2-grouped", "qwen3_moe", "grouped", options={"pp": 2, "ep": 2}, special="iter_*/mp_rank_TT_PPP_EEE, layers and experts numbered in their rank; linear_fc1.weightN", num_hidden_layers=4, **ranked, **moe)
    no_lora = {**hf.MLA, "q_lora_rank": None, "vocab_size": 264, "num_attention_heads": 8, "num_key_value_heads": 8}
    one(out, "lm-torchdist-deepseekv3-tp4", "deepseek_v3", "torch_dist", source="source/iter_0000010", options={"tp": 4}, metadata=numbered, special="MLA without q_lora, TP4", check=False, **lm, **no_lora)
    one(out, "lm-legacy-llama-virtual", "llama", "te", source="source/iter_0000010", special="iter_*/mp_rank_TT_PPP with model0 and model1: virtual pipeline stages", num_hidden_layers=4, **lm, **even)
    interleave(pathlib.Path(out) / "mcore-lm-legacy-llama-virtual/source/iter_0000010")


if __name__ == "__main__":
    main(sys.argv[1])
