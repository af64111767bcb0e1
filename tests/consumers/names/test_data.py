"""The data that the program carries is what transformers' own classes give now."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
FOLDER = pathlib.Path(__file__).parents[3] / "src" / "mapping" / "classes"
# Every class with CKPTFS_ALL_CLASSES=1, else one of so many.
STEP = 1 if os.environ.get("CKPTFS_ALL_CLASSES") else 60


def carried():
    """By class: the forms of its names in files and in memory, and the class whose conversions it has."""
    text = (FOLDER / "names.txt").read_text()
    nodes = text.split("[nodes]\n")[1].split("[ties]\n")[0].splitlines()
    forms = {}

    def below(node):
        if node not in forms:
            forms[node] = set()
            for token in nodes[node].split(" "):
                name, is_inner, inner = token.rpartition(":")
                forms[node] |= {f"{name}.{rest}" for rest in below(int(inner))} if is_inner else {token}
        return forms[node]

    fields = [line.split(" ") for line in text.split("[classes]\n")[1].splitlines()]
    return {name: (below(int(saved)), below(int(memory)), conversion) for name, _, _, saved, memory, conversion, _ in fields}


def tables():
    blocks = (FOLDER / "conversions.txt").read_text().split("\n@")[1:]
    return {block.split("\n")[0]: "@" + block.rstrip("\n") for block in blocks}


def test_the_carried_names_are_those_of_the_classes():
    import classes
    import collect
    import pack

    data, known, wrong, built = carried(), tables(), {}, 0
    found = classes.model_classes()
    for i, (name, cls) in enumerate(found.items()):
        if i % STEP:
            continue
        own, error = collect.collected(cls, False)
        if error:
            continue
        built += 1
        record = collect.record(own, error)
        saved, memory, conversion = data.get(name, (set(), set(), "-"))
        lacking = (set(record["saved"]) - saved) | (set(record["memory"]) - memory)
        rules, starts, _ = pack.converted(record)
        if lacking or bool(rules or starts) and conversion not in known:
            wrong[name] = sorted(lacking)[:3] or "no conversion"
    print(f"{built} classes compared")
    assert built and not wrong
