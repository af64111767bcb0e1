"""The forms of the names of every model class: digits generalised, over the default config and one switch of it at a time.

Each class is built with every value that the code of its model chooses by; pack.py gives what that adds to one class to the
others of its type."""

import contextlib
import json
import re
import sys
import time

import classes

NUMBER = re.compile(r"0|[1-9]\d*")
# Parameters that are numbered in their last component, which the program generalises too.
GROUPED = re.compile(r"(weight|bias)(0|[1-9]\d*)(?!\d)")


def form(name):
    return ".".join("{}" if NUMBER.fullmatch(part) else GROUPED.sub(r"\1{}", part, count=1) if GROUPED.match(part) else part for part in name.split("."))


def numbers(name):
    return [part for part in name.split(".") if NUMBER.fullmatch(part)]


class Forms:
    """What is known of one class."""

    def __init__(self, cls):
        self.name = cls.__name__
        self.type = cls.config_class.model_type
        self.prefix = cls.base_model_prefix
        # The names that a model of the default config has, and those in memory of which it writes something.
        self.plain, self.plain_written, self.written = set(), set(), set()
        self.memory, self.saved, self.tied, self.ignored = set(), set(), {}, set()
        # Examples of how names of a saved form are made: by that form, the sources' forms and the steps, pairs of names.
        self.made, self.odd = {}, []
        # How many values of its config were varied, and how many models of other values could be built.
        self.switches, self.builds = 0, 0

    def add(self, model):
        memory, ignored, tied, made = classes.saved(model)
        self.memory.update(map(form, memory))
        self.ignored.update(map(form, ignored))
        self.saved.update(map(form, made))
        for copy, stays in tied.items():
            self.tied.setdefault(form(copy), set()).add(form(stays))
        for name, (sources, steps) in made.items():
            self.add_making(name, sources, steps)

    def add_making(self, name, sources, steps):
        parts = [(sources, ())] if isinstance(sources, str) else sources or [(None, ())]
        if any(not isinstance(source, str) for source, _ in parts):
            self.odd.append(name)
            return
        sources = tuple(source for source, _ in parts)
        self.written.update(map(form, sources))
        ways = json.dumps([[plain(own) for _, own in parts], plain(steps)])
        pairs = self.made.setdefault((form(name), tuple(map(form, sources)), ways), [])
        if len(pairs) < 400:
            pairs.append((name, sources))


def plain(steps):
    """Steps without a tensor's own index along an axis that is cut into slices, and without sizes."""
    told, steps = [], list(steps)
    for i, step in enumerate(steps):
        is_cut = step[0] == "part" and i + 1 < len(steps) and steps[i + 1][0] == "squeeze"
        if is_cut or step[0] == "unbind":
            told.append(["slice", step[1]])
        elif step[0] == "reshape":
            told.append(["reshape", *ratios(*step[1:])])
        elif step[0] != "squeeze":
            told.append(list(step))
    return told


def templates(pairs, is_sliced):
    """The sources' names and the saved one with letters for their numbers; a number that is always the same stays."""
    (name, sources), letters = pairs[0], "abcdefgh"
    own = [list(column) for column in zip(*(numbers(name) for name, _ in pairs))]
    theirs = [list(column) for column in zip(*([n for s in sources for n in numbers(s)] for _, sources in pairs))]
    given = {}
    for i, column in enumerate(own):
        used = {at for at in given.values() if at is not None}
        given[i] = next((j for j, other in enumerate(theirs) if other == column and j not in used and j > max(used, default=-1)), None)
    free = [i for i in given if given[i] is None and len(set(own[i])) > 1]
    if len(free) > (1 if is_sliced else 0):
        return None
    words = {i: letters[i] if given[i] is not None else "expert" for i in given if given[i] is not None or i in free}
    if is_sliced and not free:
        return None
    to = filled(name, words)
    froms, at = [], 0
    for source in sources:
        count = len(numbers(source))
        back = {j - at: letters[i] for i, j in given.items() if j is not None and at <= j < at + count}
        # The sources of one tensor are of one layer.
        for j in range(count):
            match = next((i for i, k in given.items() if k is not None and theirs[k] == theirs[at + j]), None)
            if j not in back and match is not None:
                back[j] = letters[match]
        if any(j not in back and len(set(theirs[at + j])) > 1 for j in range(count)):
            return None
        froms.append(filled(source, back))
        at += count
    return froms, to


def filled(name, words):
    parts, at = [], 0
    for part in name.split("."):
        if NUMBER.fullmatch(part):
            part, at = "{%s}" % words[at] if at in words else part, at + 1
        parts.append(part)
    return ".".join(parts)


def ratios(old, new):
    """A reshape told by which axes of the old shape are split in two and which are joined."""
    if len(new) == len(old) + 1:
        at = next(i for i in range(len(old)) if old[: i] == new[: i] and old[i] == new[i] * new[i + 1] and old[i + 1 :] == new[i + 2 :])
        return ["split", at, "front" if new[at] == 2 else "back", len(old)]
    if len(new) == len(old) - 1:
        at = next(i for i in range(len(new)) if old[: i] == new[: i] and new[i] == old[i] * old[i + 1] and old[i + 2 :] == new[i + 1 :])
        return ["join", at, len(old)]
    return ["other", list(old), list(new)]


def collected(cls, varies):
    """The forms of a class, or why there are none."""
    own = Forms(cls)
    errors = []
    makers = [cls.config_class, *(lambda small=small: classes.config(cls.config_class, {}, small) for small in (False, True))]
    for make in makers[1:] + makers[:1]:
        try:
            own.add(classes.built(cls, make()))
            break
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}"[:200])
    else:
        return own, errors[-1]
    own.plain, own.plain_written = {*own.memory, *own.saved}, set(own.written)
    # Some classes have projections where two sizes differ.
    with contextlib.suppress(Exception):
        own.add(classes.built(cls, classes.tiny(cls.config_class)))
    switches = classes.switches(cls.config_class, cls) if varies else {}
    changes = [{path: value} for path, values in switches.items() for value in values]
    # Weights that need two switches: all that turn something on together, and all that turn something off.
    flips = {path: values[0] for path, values in switches.items() if isinstance(values[0], bool)}
    for flip in (True, False) if flips else ():
        changes.append({path: value for path, value in flips.items() if value is flip})
    own.switches = len(switches)
    small = is_built(cls, True)
    for change in changes:
        try:
            own.add(classes.built(cls, classes.config(cls.config_class, change, small)))
            own.builds += 1
        except Exception:
            continue
    return own, None


def is_built(cls, small):
    """Whether a class can be built with few layers: the configs of some say of each layer what it is."""
    try:
        classes.built(cls, classes.config(cls.config_class, {}, small))
    except Exception:
        return False
    return True


def record(own, error):
    made = []
    for (name, sources, ways), pairs in sorted(own.made.items()):
        parts, steps = json.loads(ways)
        is_sliced = any(step[0] == "slice" for part in [*parts, steps] for step in part)
        if sources == (name,) and not steps and not parts[0] and all(name == s for name, (s,) in pairs):
            continue
        told = templates(pairs, is_sliced)
        if told is None:
            own.odd.append(f"{pairs[0][0]} of {', '.join(pairs[0][1])}")
        else:
            made.append({"from": told[0], "to": told[1], "parts": parts, "steps": steps})
    return {
        "name": own.name, "switches": own.switches, "builds": own.builds, "varied": sorted({*own.memory, *own.saved} - own.plain),
        "untied": sorted(copy for copy in own.tied if copy in own.plain_written), "type": own.type, "prefix": own.prefix, "error": error, "odd": own.odd[:20],
        "memory": sorted(own.memory), "saved": sorted(own.saved), "ignored": sorted(own.ignored),
        "tied": {copy: sorted(stays) for copy, stays in sorted(own.tied.items())}, "made": made,
    }


def main(path, only, share, of):
    begun = time.time()
    found = classes.model_classes()
    with open(path, "w") as out:
        for i, (name, cls) in enumerate(found.items()):
            if i % int(of) != int(share) or only != "all" and not re.search(only, name):
                continue
            start = time.time()
            out.write(json.dumps(record(*collected(cls, True))) + "\n")
            out.flush()
            print(f"{i} {name} {time.time() - start:.1f} s, {time.time() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
