"""torchtune 0.6.1: every checkpointer, family and key spelling; and the folders of its main branch."""
import checked


def test_torchtune_checkpoints_equal_what_their_own_converter_makes(subtests):
    checked.check(checked.generate("gen_torchtune.py", environment="torchtune"), subtests)


def test_the_folders_of_the_main_branch_show_what_was_written_in_them(subtests):
    """No package holds main: its names are made again here, with the converters of 0.6.1."""
    checked.check(checked.generate("gen_torchtune_main.py", environment="torchtune"), subtests)
