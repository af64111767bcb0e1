"""A Llama small enough to be made, saved and loaded in a blink, and a tokenizer to go with it."""
import json


def config(**changes):
    """The shape that every framework accepts; `changes` go to LlamaConfig."""
    import transformers

    shape = {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "architectures": ["LlamaForCausalLM"],
    }
    return transformers.LlamaConfig(**{**shape, **changes})


def model(seed=0, **changes):
    """A LlamaForCausalLM with every weight random, the norms too, so that two swapped tensors always show."""
    import torch
    import transformers

    torch.manual_seed(seed)
    shape = config(**changes)
    made = transformers.LlamaForCausalLM(shape).to(shape.dtype)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.05 + (1.0 if "norm" in name else 0.0))
    return made.eval()


def write_config(folder, **changes):
    """config.json and generation_config.json of the tiny model, as transformers writes them."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    shape = config(**changes)
    shape.save_pretrained(folder)
    transformers.GenerationConfig(bos_token_id=1, eos_token_id=2).save_pretrained(folder)
    return folder


def write_tokenizer(folder, vocab_size=512):
    """A byte-level BPE without merges: three special tokens and the 256 bytes, as far as the vocabulary reaches."""
    alphabet = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    alphabet += [256 + i for i in range(256 - len(alphabet))]
    tokens = ["<unk>", "<s>", "</s>", *map(chr, alphabet)][:vocab_size]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **special} for i in range(3)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [],
        },
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": 256,
        "clean_up_tokenization_spaces": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
    return folder
