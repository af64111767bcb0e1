"""Trainers that do not install on a CPU: their layouts, written by hand after their sources."""
import checked


def test_layouts_written_by_hand_show_the_model_that_was_saved(subtests):
    checked.check(checked.generate("gen_layouts.py"), subtests)


def test_further_families_of_megatron_show_the_model_that_was_fused_and_split(subtests):
    checked.check(checked.generate("gen_megatron_families.py"), subtests)
