"""torchtune 0.6.1: every checkpointer, family and key spelling."""
import checked


def test_torchtune_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_torchtune.py", environment="torchtune"), subtests)
