"""open_in_vllm.py PACKAGE REAL DCP: greedy tokens of vLLM's CPU build by the load format `ckptfs`, then from the real directory."""
import json
import pathlib
import sys

package, real, source = sys.argv[1:]
sys.path.append(str(pathlib.Path(package).parent))

from vllm import LLM, SamplingParams

import ckptfs.vllm

PROMPTS = [[1, 5, 9, 200, 33], [1, 500, 7]]
SMALL = {"enforce_eager": True, "max_model_len": 128, "max_num_seqs": 4, "skip_tokenizer_init": True}


def tokens(**options):
    llm = LLM(real, **SMALL, **options)
    sampling = SamplingParams(temperature=0, max_tokens=16, detokenize=False, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], sampling)
    return json.dumps([list(output.outputs[0].token_ids) for output in outputs])


if __name__ == "__main__":
    ckptfs.vllm.register()  # as vLLM does by the package's entry point where both are in one environment
    print("tokens", tokens(load_format="ckptfs", model_loader_extra_config={"source": source}))
    print("tokens", tokens())
