"""Accelerate's FSDP folders and FSDP1's sharded tensors."""
import checked


def test_accelerate_and_fsdp1_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_pytorch.py", environment="base"), subtests)
