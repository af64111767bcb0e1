"""meta_convert.py SOURCE OUT PARALLEL GENERATION VOCAB: transformers' own converter, in the meta environment. It casts to bf16."""
import sys

from transformers.models.llama.convert_llama_weights_to_hf import write_model

source, out, parallel, generation, vocabulary = sys.argv[1:]
write_model(out, source, num_shards=int(parallel), llama_version=generation, vocab_size=int(vocabulary))
