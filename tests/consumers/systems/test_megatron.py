"""megatron-core: verl's and Megatron-LM's layouts."""
import checked


def test_megatron_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_megatron.py", environment="verl"), subtests)
