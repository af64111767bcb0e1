"""vllm_generate.py FOLDER [STRATEGY]: prints the greedy tokens that vLLM's CPU build generates. Runs in the vllm environment."""
import json
import sys

from vllm import LLM, SamplingParams

PROMPTS = [[1, 5, 9, 200, 33], [1, 500, 7], list(range(3, 40))]

if __name__ == "__main__":
    folder, strategy = (*sys.argv[1:], None)[:2]
    small = {"enforce_eager": True, "max_model_len": 128, "max_num_seqs": 4}
    llm = LLM(folder, skip_tokenizer_init=True, safetensors_load_strategy=strategy, **small)
    sampling = SamplingParams(temperature=0, max_tokens=24, detokenize=False, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], sampling)
    print("tokens", json.dumps([list(output.outputs[0].token_ids) for output in outputs]))
