"""Every model class of transformers, built on the meta device: its names in memory, and those that save_pretrained writes."""

import contextlib
import functools
import importlib
import inspect
import pkgutil
import re
import warnings

import torch
import transformers.models
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import _get_tied_weight_keys
from transformers.utils import logging

logging.set_verbosity_error()
warnings.filterwarnings("ignore")
# transformers compiles the patterns of all its conversions for each model, more than Python's cache holds.
re._MAXCACHE = 1 << 14

EXPERTS = re.compile(r"^(moe_)?(num|n)_?\w*experts$")
LAYERS = re.compile(r"^(n_layers?|num_layers|num_blocks|num_hidden_layers|\w*num_hidden_layers|(en|de)coder_layers|depth)$")
# Sizes, which decide how large weights are and not which there are.
SIZES = re.compile(r"size|_dim$|^dim|heads|channels|_id$|_ids$|_token|length|positions|theta|eps|dropout|prob|std|gamma|range|rate$|scal")
# Values of keys whose presence alone no line of code asks for.
CHOICES = {
    "q_lora_rank": [None, 8],
    "n_shared_experts": [None, 1],
    "num_shared_experts": [0, 1],
    "first_k_dense_replace": [0],
    "projection_dim": [8],
    "num_nextn_predict_layers": [1],
    "mtp_num_hidden_layers": [1],
}
# Switches of every config that change nothing about which weights there are.
COMMON = set(PreTrainedConfig().to_dict()) - {"tie_word_embeddings", "add_cross_attention", "is_decoder"} | {"is_encoder_decoder", "use_cache"}
# Lines of code that choose.
CHOOSING = re.compile(r"\b(if|else|elif|and|or|not|in|is|assert)\b|[=!<>]=|[<>]")
WORD = re.compile(r"[A-Za-z_]\w*")
TEXT = re.compile(r"""["']([\w.-]{2,40})["']""")


def model_classes():
    """All classes that from_pretrained can be called on, by name."""
    found = {}
    for package in sorted(module.name for module in pkgutil.iter_modules(transformers.models.__path__)):
        folder = importlib.import_module(f"transformers.models.{package}")
        for file in sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if m.name.startswith("modeling_")):
            try:
                module = importlib.import_module(f"transformers.models.{package}.{file}")
            except ImportError:
                continue
            for name, cls in vars(module).items():
                is_model = inspect.isclass(cls) and issubclass(cls, PreTrainedModel) and cls.__module__ == module.__name__
                is_abstract = re.search(r"Pre[tT]rainedModel$|^Pretrained", name)
                if is_model and cls.config_class is not None and not is_abstract:
                    found[name] = cls
    return found


# Sizes of a model that is built in no time.
TINY = {
    "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "vocab_size": 130,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "d_model": 64, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "n_embd": 64, "n_head": 4, "d_ff": 96, "d_kv": 16, "num_heads": 4,
    "q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}


def tiny(cls):
    """The default config with small sizes, few layers and few experts; not every class can be built of it."""
    made = config(cls, {}, True)
    for key in cls.sub_configs:
        if isinstance(getattr(made, key, None), PreTrainedConfig):
            setattr(made, key, tiny(type(getattr(made, key))))
    for key, value in TINY.items():
        if type(getattr(made, key, None)) is int:
            setattr(made, key, value)
    return type(made)(**{key: value for key, value in vars(made).items() if not key.startswith("_")})


def config(cls, changes, small):
    """The default config with few experts, a few layers where `small`, and the values of `changes` by their paths."""
    plain = cls()
    values = {}
    for key, value in vars(plain).items():
        is_count = isinstance(value, int) and not isinstance(value, bool)
        if is_count and value > 4 and EXPERTS.match(key) or small and is_count and value > 3 and LAYERS.match(key):
            values[key] = 3
    for key in cls.sub_configs:
        part = getattr(plain, key, None)
        if isinstance(part, PreTrainedConfig) and type(part) is not cls:
            inner = {path[1:]: value for path, value in changes.items() if path[0] == key and len(path) > 1}
            values[key] = config(type(part), inner, small)
    values.update({path[0]: value for path, value in changes.items() if len(path) == 1})
    return cls(**values)


@functools.cache
def code(place):
    """The words of the lines of a module, or of a class, and the texts between quotes that stand on one line with each."""
    words = {}
    for line in inspect.getsource(place).splitlines():
        found, texts = set(WORD.findall(line)), TEXT.findall(line)
        for word in found:
            chooses, known = words.get(word, (False, set()))
            words[word] = (chooses or bool(CHOOSING.search(line)), known | set(texts))
    return words


def words_of(config, model):
    """What `code` finds in the modules of a model class and of a config's own model."""
    words = dict(code(inspect.getmodule(model)))
    try:
        own = importlib.import_module(config.__module__.replace(".configuration_", ".modeling_"))
    except ImportError:
        return words
    for word, (chooses, texts) in code(own).items():
        known = words.get(word, (False, set()))
        words[word] = (known[0] or chooses, known[1] | texts)
    return words


def others(key, value, words):
    """The other values of a config's key that may decide which weights there are, by the code that reads it."""
    if isinstance(value, bool):
        return [not value]
    if key in CHOICES:
        return [other for other in CHOICES[key] if other != value]
    chooses, texts = words.get(key, (False, set()))
    if isinstance(value, str):
        return sorted(texts - {value, key})
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        kinds = {*value, *texts, *words.get(key.rstrip("s"), (False, set()))[1]} - {key}
        return [[kind] * len(value) for kind in sorted(kinds)]
    if not chooses or SIZES.search(key):
        return []
    if isinstance(value, list):
        return [[]] if value else [[0], [1]]
    if value is None:
        return [8, True, *sorted(texts - {key})]
    if isinstance(value, int) and not LAYERS.match(key):
        return [other for other in (0, 1, 2, None) if other != value]
    return [0.0, 0.5] if isinstance(value, float) else []


def switches(cls, model, path=()):
    """The paths of a config's values that may decide which weights a model class has, each with its other values."""
    plain, words = cls(), words_of(cls, model)
    found = {}
    for key, value in vars(plain).items():
        may_decide = isinstance(value, bool) or key in CHOICES or key in words
        if may_decide and not key.startswith("_") and key not in COMMON and (values := others(key, value, words)):
            found[(*path, key)] = values
    for key in cls.sub_configs:
        part = getattr(plain, key, None)
        if isinstance(part, PreTrainedConfig) and type(part) is not cls and len(path) < 2:
            found.update(switches(type(part), model, (*path, key)))
    return found


class Trace(TorchFunctionMode):
    """Notes of which tensors, by which steps, each tensor of a conversion is made."""

    def __init__(self, state):
        super().__init__()
        self.made = {id(tensor): (name, ()) for name, tensor in state.items()}
        self.alive = list(state.values())

    def of(self, tensor):
        return self.made.get(id(tensor), (None, ()))

    def note(self, result, made):
        self.alive.append(result)
        self.made.setdefault(id(result), made)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        source = args[0] if args else None
        if name in ("cat", "stack") and isinstance(source, (list, tuple)):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            self.note(result, (tuple(self.of(each) for each in source), ((name, dim),)))
        elif isinstance(source, torch.Tensor) and id(source) in self.made and not name.startswith("__"):
            self.follow(name, source, args[1:], kwargs, result)
        return result

    def follow(self, name, source, args, kwargs, result):
        names, steps = self.of(source)
        if isinstance(result, (tuple, list)) and result and all(isinstance(part, torch.Tensor) for part in result):
            dim = kwargs.get("dim", args[-1] if name in ("chunk", "split") and len(args) > 1 else args[0] if name == "unbind" and args else 0)
            start = 0
            for i, part in enumerate(result):
                if name == "unbind":
                    self.note(part, (names, (*steps, ("unbind", dim, i))))
                else:
                    even = part.shape[dim] * len(result) == source.shape[dim]
                    step = ("part", dim, i, len(result)) if even else ("narrow", dim, start, part.shape[dim])
                    self.note(part, (names, (*steps, step)))
                    start += part.shape[dim]
        elif isinstance(result, torch.Tensor) and result is not source:
            if name in ("contiguous", "detach", "clone"):
                self.note(result, (names, steps))
            elif name == "squeeze":
                dim = kwargs.get("dim", args[0] if args else None)
                self.note(result, (names, (*steps, ("squeeze", dim))))
            elif name in ("transpose", "swapaxes"):
                dims = sorted([kwargs.get("dim0", args[0] if args else 0), kwargs.get("dim1", args[1] if len(args) > 1 else 1)])
                self.note(result, (names, (*steps, ("transpose", *dims, source.dim()))))
            elif name in ("reshape", "view"):
                self.note(result, (names, (*steps, ("reshape", tuple(source.shape), tuple(result.shape)))))
            else:
                self.note(result, (names, (*steps, (name,))))


def built(cls, config):
    with torch.device("meta"), contextlib.redirect_stdout(None):
        return cls(config)


def saved(model):
    """The names in memory, the copies among them, and the names that save_pretrained writes, each with how it is made."""
    state = dict(model.state_dict())
    memory = list(state)
    for name in model._keys_to_ignore_on_save or ():
        state.pop(name, None)
    ignored = [name for name in memory if name not in state]
    tied = remove_tied(model, state)
    with Trace(state) as trace:
        out = revert_weight_conversion(model, state)
    return memory, ignored, tied, {name: trace.of(tensor) for name, tensor in out.items()}


def remove_tied(model, state):
    """Takes the copies of tied weights out of a state dict, as transformers does; each with the one that stays."""
    groups = {}
    for name in state:
        groups.setdefault(id(model.get_parameter_or_buffer(name)), []).append(name)
    patterns = _get_tied_weight_keys(model)
    tied = {}
    for names in groups.values():
        matching = [name for name in sorted(names) if any(re.search(pattern, name) for pattern in patterns)]
        copies = matching if len(matching) < len(names) else matching[:-1]
        stays = [name for name in names if name not in copies]
        if len(stays) > 1:
            raise ValueError(f"shares weights without saying so: {stays}")
        for name in copies:
            tied[name] = stays[0]
            del state[name]
    return tied
