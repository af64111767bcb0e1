"""torchtitan's families in all of its spellings."""
import pytest

import checked


GENERATORS = [
    ("gen_titan.py", "base"),
    ("gen_titan_old.py", "titan-old"),
    ("gen_titan_between.py", "base"),
    ("gen_titan_float8.py", "torchtune"),  # which has torchao
]


@pytest.mark.parametrize("script, environment", GENERATORS)
def test_torchtitan_checkpoints_equal_what_their_adapter_makes(subtests, script, environment):
    folder = checked.generate(script, environment=environment)
    checked.check(folder, subtests)
    for case in checked.cases(folder):
        held = "deepseek" in case.name
        if "moe" in case.name or "gptoss" in case.name or "llama4" in case.name or held:
            with subtests.test(msg=f"{case.name}: a warning if and only if a bias that is not zero is dropped"):
                warns = "expert_bias" in checked.warnings_of(case)
                assert warns == (has_bias(case) and not held)


def has_bias(case):
    """Generators name the cases whose load-balancing bias is not zero."""
    return "bias" in case.name
