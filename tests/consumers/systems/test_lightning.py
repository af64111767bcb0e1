"""Lightning's .ckpt files."""
import checked


def test_lightning_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_lightning.py", environment="lightning"), subtests)
