"""Small models of many families, every weight random, and what save_pretrained writes of them."""

import contextlib

import torch
import transformers as hf


def tiny(name, config, **values):
    made = getattr(hf, name)(getattr(hf, config)(**values))
    return filled(made)


def filled(model, seed=0):
    """The model with other weights, tied ones still tied."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *(each for each in model.buffers() if each.is_floating_point())]:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model.eval()


BERT = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, vocab_size=61, max_position_embeddings=32)
GQA = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=67, head_dim=8)
T5 = dict(d_model=24, d_kv=12, d_ff=40, num_layers=2, num_heads=2, vocab_size=61)
BART = dict(d_model=24, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=40, decoder_ffn_dim=40, vocab_size=61, max_position_embeddings=32)
WHISPER = {**BART, "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
MOE = {**GQA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
GPT2 = dict(n_embd=24, n_layer=2, n_head=2, n_positions=32, vocab_size=61)

MODELS = {
    "bert-classifier": lambda: tiny("BertForSequenceClassification", "BertConfig", **BERT, num_labels=3),
    "bert-mlm": lambda: tiny("BertForMaskedLM", "BertConfig", **BERT),
    "bert-base": lambda: tiny("BertModel", "BertConfig", **BERT),
    "roberta": lambda: tiny("RobertaForSequenceClassification", "RobertaConfig", **{**BERT, "max_position_embeddings": 40}),
    "deberta": lambda: tiny("DebertaV2ForTokenClassification", "DebertaV2Config", **BERT),
    "t5": lambda: tiny("T5ForConditionalGeneration", "T5Config", **T5),
    "t5-encoder": lambda: tiny("T5EncoderModel", "T5Config", **T5),
    "bart": lambda: tiny("BartForConditionalGeneration", "BartConfig", **BART),
    "marian": lambda: tiny("MarianMTModel", "MarianConfig", **BART, pad_token_id=60, decoder_start_token_id=60),
    "whisper": lambda: tiny("WhisperForConditionalGeneration", "WhisperConfig", **WHISPER),
    "gpt2": lambda: tiny("GPT2LMHeadModel", "GPT2Config", **GPT2),
    "llama": lambda: tiny("LlamaForCausalLM", "LlamaConfig", **GQA),
    "llama-tied": lambda: tiny("LlamaForCausalLM", "LlamaConfig", **GQA, tie_word_embeddings=True),
    "llama-base": lambda: tiny("LlamaModel", "LlamaConfig", **GQA),
    "llama-classifier": lambda: tiny("LlamaForSequenceClassification", "LlamaConfig", **GQA, num_labels=3),
    "qwen2-answers": lambda: tiny("Qwen2ForQuestionAnswering", "Qwen2Config", **GQA),
    "qwen3-moe": lambda: tiny("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **MOE),
    "gemma2-tied": lambda: tiny("Gemma2ForCausalLM", "Gemma2Config", **GQA),
    "olmoe": lambda: tiny("OlmoeForCausalLM", "OlmoeConfig", **{k: v for k, v in MOE.items() if k != "head_dim"}),
    "vit": lambda: tiny("ViTForImageClassification", "ViTConfig", hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, image_size=16, patch_size=8),
    "wav2vec2": lambda: tiny("Wav2Vec2ForCTC", "Wav2Vec2Config", hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, vocab_size=20, conv_dim=(8, 8), conv_stride=(2, 2), conv_kernel=(3, 3), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2),
    "shieldgemma2": lambda: shieldgemma2(),
}
# A base model under another attribute than its head's model has, which is the same with and without the head.
BASES = {"bert-base", "llama-base", "t5-encoder"}


def shieldgemma2():
    text = {**GQA, "sliding_window": 8}
    vision = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=8)
    config = hf.ShieldGemma2Config(text_config=hf.Gemma3TextConfig(**text).to_dict(), vision_config=hf.SiglipVisionConfig(**vision).to_dict(), mm_tokens_per_image=4)
    return filled(hf.ShieldGemma2ForImageClassification(config))


def other(name):
    """The same model with other weights."""
    return filled(MODELS[name](), seed=1)


@contextlib.contextmanager
def quiet():
    before = hf.utils.logging.get_verbosity()
    hf.utils.logging.set_verbosity_error()
    yield
    hf.utils.logging.set_verbosity(before)
