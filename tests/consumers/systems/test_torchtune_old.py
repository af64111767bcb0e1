"""torchtune 0.3.1: the older file names."""
import checked


def test_torchtune_old_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_torchtune.py", environment="torchtune-old"), subtests)
