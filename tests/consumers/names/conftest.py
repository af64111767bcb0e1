"""The models of the tests of names, each made once."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """By name: a model and the folder that save_pretrained wrote."""
    import models

    kept = {}

    def make(name):
        if name not in kept:
            model, folder = models.MODELS[name](), tmp_path_factory.mktemp(name)
            with models.quiet():
                model.save_pretrained(folder)
            kept[name] = model, folder
        return kept[name]

    return make
