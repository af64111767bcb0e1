"""Lingua: DCP and consolidated files."""
import checked


def test_lingua_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_lingua.py", environment="base"), subtests)
