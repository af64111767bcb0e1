"""verl's FSDP checkpoints, actors, critics and adapters."""
import checked


def test_verl_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_verl.py", environment="verl"), subtests)
