"""vllm_generate.py FOLDER: prints the greedy tokens that vLLM's CPU build generates. Runs in the vllm environment."""
import json
import sys

from vllm import LLM, SamplingParams

PROMPTS = [[1, 5, 9, 200, 33], [1, 500, 7], list(range(3, 40))]

if __name__ == "__main__":
    llm = LLM(sys.argv[1], skip_tokenizer_init=True, enforce_eager=True, max_model_len=128, max_num_seqs=4)
    sampling = SamplingParams(temperature=0, max_tokens=24, detokenize=False, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], sampling)
    print("tokens", json.dumps([list(output.outputs[0].token_ids) for output in outputs]))
