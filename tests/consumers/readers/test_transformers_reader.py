"""transformers cannot tell the mount from the real directory."""
import pytest
import torch
import transformers

import tensors

TOKENS = torch.arange(24).reshape(2, 12) * 7


def load(folder, **kwargs):
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **kwargs)
    assert not any(report.values()), report
    return loaded


def logits(folder, **kwargs):
    with torch.no_grad():
        return load(folder, **kwargs)(TOKENS).logits


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
def test_from_pretrained_gives_bitwise_equal_logits(pair, dtype):
    """With another dtype than the stored one, four threads read from all mapped shards at once."""
    assert torch.equal(logits(pair.shown, dtype=dtype), logits(pair.real, dtype=dtype))


def test_from_pretrained_without_mmap_gives_bitwise_equal_logits(pair):
    assert torch.equal(logits(pair.shown, disable_mmap=True), logits(pair.real))


def test_the_loaded_model_is_the_one_that_was_saved(pair, model):
    loaded = load(pair.shown, dtype="auto")
    tensors.assert_equal_bitwise(tensors.from_torch(loaded.state_dict()), tensors.from_torch(model.state_dict()))


def test_auto_tokenizer_reads_the_mount(pair):
    text = "Any checkpoint, any name: naïve ΔΣ"
    shown, real = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (pair.shown, pair.real))
    assert shown(text)["input_ids"] == real(text)["input_ids"]
    assert shown.decode(shown(text)["input_ids"]) == text


def test_generation_config_reads_the_mount(pair):
    shown, real = (transformers.GenerationConfig.from_pretrained(folder) for folder in (pair.shown, pair.real))
    assert shown == real
