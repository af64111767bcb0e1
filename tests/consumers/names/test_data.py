"""The data that the program carries is what transformers' own classes give now."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
# Every class with CKPTFS_ALL_CLASSES=1, else one of so many.
STEP = 1 if os.environ.get("CKPTFS_ALL_CLASSES") else 60


def test_the_carried_names_are_those_of_the_classes():
    import classes
    import collect
    import pack

    carried = pack.Carried(*((pack.FOLDER / f"{name}.txt").read_text() for name in ("names", "conversions")))
    data, wrong, built = {record["name"]: record for record in carried.records()}, {}, 0
    found = classes.model_classes()
    for i, (name, cls) in enumerate(found.items()):
        if i % STEP:
            continue
        own, error = collect.collected(cls, False)
        if error:
            continue
        built += 1
        record = collect.record(own, error)
        own = data.get(name, {"saved": (), "memory": (), "table": None})
        lacking = {name for key in ("saved", "memory") for name in set(record[key]) - set(own[key])}
        rules, starts, _ = pack.converted(record)
        if lacking or (rules or starts) and not own["table"]:
            wrong[name] = sorted(lacking)[:3] or "no conversion"
    print(f"{built} classes compared")
    assert built and not wrong
