"""torchtune 0.5.0: the ft-model file names."""
import checked


def test_torchtune_middle_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_torchtune.py", environment="torchtune-05"), subtests)
