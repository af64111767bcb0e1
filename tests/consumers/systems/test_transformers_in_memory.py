"""transformers models saved by torch, as they are in memory."""
import checked


def test_transformers_in_memory_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_transformers.py", environment="base"), subtests)


def test_families_that_no_table_lists_become_what_save_pretrained_writes(subtests):
    checked.check(checked.generate("gen_transformers_families.py", environment="base"), subtests)
