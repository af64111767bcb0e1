"""Meta's and Mistral's consolidated files, against transformers' converter of 4.46.3."""
import checked
import processes


def test_meta_and_mistral_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_meta.py", processes.python("meta"), environment="base"), subtests)
