"""generate.py MODEL PROMPT: what a model in a Hugging Face folder answers."""
import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

path, prompt = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
tokens = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=16, do_sample=False)
print(tokenizer.decode(tokens[0]))
