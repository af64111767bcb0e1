"""Writes what collect.py found as the data that the program carries: names.txt and conversions.txt. Names and classes that are
there already stay, so that some classes alone can be collected, with other configs; without the two files all is new.

names.txt is one graph for all classes: a name's components, digits as {}, are edges, and equal subtrees are one node, so that
a layer that fifty classes share is written once. A line is a node: `weight` ends a name, `mlp:12` leads to the node of line 12.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parents[3] / "src" / "mapping" / "classes"
HEAD = "# Names of every model class of transformers {version}. Written by tests/consumers/names/pack.py; not to be edited.\n"


class Graph:
    """Trees of names, equal ones shared."""

    def __init__(self):
        self.ids, self.lines = {}, []

    def add(self, forms):
        tree = {}
        for form in forms:
            node = tree
            for part in form.split("."):
                node = node.setdefault(part, {})
            node[""] = {}
        return self.node(tree)

    def node(self, tree):
        tokens = []
        for part, below in sorted(tree.items()):
            if part == "":
                continue
            if "" in below:
                tokens.append(part)
            if set(below) - {""}:
                tokens.append(f"{part}:{self.node(below)}")
        line = " ".join(tokens)
        if line not in self.ids:
            self.ids[line] = len(self.lines)
            self.lines.append(line)
        return self.ids[line]


def completed(records):
    """Gives every class the names that a switch adds to another one of its config, where it has the module that holds them."""
    donors = {}
    for record in records:
        if record["varied"]:
            donors.setdefault(record["type"], []).append(record)
    for record in records:
        for donor in donors.get(record["type"], ()):
            if donor is not record and not record["error"]:
                for key in ("memory", "saved"):
                    record[key] = sorted({*record[key], *lent(record, donor, key)})
        for key in ("memory", "saved"):
            record[key] = sorted({*record[key], *dense(record[key])})
    return records


def dense(forms):
    """The names of layers without experts, which the configs of most mixtures can have though the varied ones had none."""
    for form in forms:
        layer, is_routed, weight = form.partition(".mlp.experts.")
        if is_routed and "gate" in weight:
            yield from (f"{layer}.mlp.{name}_proj.weight" for name in ("gate", "up", "down"))


def lent(record, donor, key):
    own = set(record[key])
    parents = {module for form in own for module in (parent(form, 1), parent(form, 2))}
    both = [(donor["prefix"] + ".", record["prefix"] + "."), (donor["prefix"] + ".", ""), ("", record["prefix"] + "."), ("", "")]
    for form in donor["varied"]:
        if form not in donor[key]:
            continue
        for theirs, ours in both:
            moved = ours + form.removeprefix(theirs) if form.startswith(theirs) else None
            if moved and moved not in own and {parent(moved, 1), parent(moved, 2)} & parents - {""}:
                yield moved
                break


def parent(form, levels):
    return ".".join(form.split(".")[:-levels])


def converted(record):
    """The rules of a class, the beginnings of names that are renamed, and the saved names that no rule makes."""
    rules, renames, odd = [], {}, [*record["odd"]]
    for making in record["made"]:
        plain = not making["steps"] and making["parts"] == [[]]
        if plain:
            renames[making["from"][0]] = making["to"]
            continue
        try:
            rules.append(rule(making))
        except ValueError as reason:
            odd.append(f"{making['to']}: {reason}")
    targets = [made["to"] for made in rules]
    for made in [made for made in rules if targets.count(made["to"]) > 1]:
        rules.remove(made)
        odd.append(f"{made['to']}: of several tensors, numbered through")
    starts = begun(record, renames, {spread(name) for made in rules for name in made["from"]})
    left = {old: new for old, new in renames.items() if not any(old.startswith(start) and end + old[len(start):] == new for start, end in starts)}
    rules += [{"from": [old], "to": new} for old, new in left.items()]
    return rules, starts, odd


def spread(template):
    return ".".join("{}" if part.startswith("{") or part.isdigit() else part for part in template.split("."))


def begun(record, renames, ruled):
    """The beginnings that stand for another beginning in all names that no rule takes."""
    named = {spread(old): spread(new) for old, new in renames.items()}
    identity = {form for form in record["memory"] if form not in named and form not in ruled}
    starts = {}
    for old, new in renames.items():
        a, b = old.split("."), new.split(".")
        while a and b and a[-1] == b[-1]:
            a.pop(), b.pop()
        start, end = "".join(part + "." for part in a), "".join(part + "." for part in b)
        fits = start and "{" not in start and "{" not in end and not any(form.startswith(spread(start)) for form in identity)
        if fits and all(not o.startswith(start) or n == end + o[len(start):] for o, n in renames.items()):
            starts[start] = end
    starts = {s: e for s, e in starts.items() if not any(s != o and s.startswith(o) and e == starts[o] + s[len(o):] for o in starts)}
    return sorted(starts.items(), key=lambda pair: (-len(pair[0]), pair))


def rule(making):
    parts = [operations(steps) for steps in making["parts"]]
    steps = list(making["steps"])
    if len(making["from"]) == 1:
        cuts, ops = operations(steps)
        if ("{expert}" in making["to"]) != cuts:
            raise ValueError("is cut along no axis of its own")
        return {"from": making["from"], "to": making["to"], "ops": ops}
    if any(cuts or ops for cuts, ops in parts) or steps[0][0] != "cat":
        raise ValueError("is made of several tensors in steps that no rule has")
    cuts, then = operations(steps[1:])
    if cuts:
        raise ValueError("is made of several tensors and cut")
    return {"from": making["from"], "to": making["to"], "concat": steps[0][1], "then": then}


def operations(steps):
    """Whether steps cut the first axis into slices, and the operations on a slice."""
    cuts = [i for i, step in enumerate(steps) if step[0] == "slice"]
    if len(cuts) > 1 or cuts and steps[cuts[0]][1] != 0:
        raise ValueError(f"is cut in a way that no rule has: {steps}")
    ops = []
    for i, step in enumerate(steps):
        less = 1 if cuts and i < cuts[0] else 0
        ops += operation(step, less)
    return bool(cuts), ops


def operation(step, less):
    name, *values = step
    if name == "slice" or name == "part" and values[2] == 1:
        return []
    if name == "part":
        dim, i, count = values[0] - less, values[1], values[2]
        if dim < 0:
            raise ValueError("takes a part of the axis that is cut")
        start = "0" if i == 0 else f"d{dim} * {i} / {count}" if i > 1 else f"d{dim} / {count}"
        return [f"narrow {dim}, {start}, d{dim} / {count}"]
    if name == "transpose":
        axes = list(range(values[2] - less))
        a, b = values[0] - less, values[1] - less
        if a < 0:
            raise ValueError("moves the axis that is cut")
        axes[a], axes[b] = b, a
        is_last = (a, b) == (len(axes) - 2, len(axes) - 1)
        return ["transpose" if is_last else "permute " + ", ".join(map(str, axes))]
    if name == "reshape" and not less and values[0] in ("split", "join"):
        count = values[-1]
        dims = [f"d{i}" for i in range(count)]
        at = values[1]
        if values[0] == "split":
            dims[at : at + 1] = ["2", f"d{at} / 2"] if values[2] == "front" else [f"d{at} / 2", "2"]
        else:
            dims[at : at + 2] = [f"d{at} * d{at + 1}"]
        return ["reshape " + ", ".join(dims)]
    raise ValueError(f"is made by {name}, which no rule has")


def table(rules, starts):
    """The rules of a class as lines: a rule's source after the components that it shares with the line before, then its result by
    the components that it takes over from the source's front and end. Fields stand between tabs."""
    lines, last = [f"^\t{start}\t{end}" for start, end in starts], []
    for made in sorted(rules, key=lambda made: (made["from"], made["to"])):
        extra = [f"{key} = {json.dumps(made[key])}" for key in ("ops", "then") if made.get(key)]
        if len(made["from"]) > 1:
            fields = [f"from = {json.dumps(made['from'])}", f"to = {json.dumps(made['to'])}", *extra, f"concat = {made['concat']}"]
            lines.append("!\t" + ", ".join(fields))
            continue
        source, to = made["from"][0].split("."), made["to"].split(".")
        shared = common(last, source)
        front = common(source, to)
        back = min(common(source[::-1], to[::-1]), len(source) - front, len(to) - front)
        middle = ".".join(to[front : len(to) - back])
        fields = [str(shared), ".".join(source[shared:]), str(front), middle, str(back), *extra]
        lines.append("\t".join(fields))
        last = source
    return "\n".join(lines)


def common(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def copies(record):
    """Tied copies, `=` where the class ties the two by itself, `~` where config.json has to say so. Layers that share weights
    have names of one form."""
    for copy, stays in record["tied"].items():
        is_optional = copy in record["untied"] and copy not in stays
        yield f"{copy}{'~' if is_optional else '='}{copy if copy in stays else stays[0]}"


class Carried:
    """What the two files have already."""

    def __init__(self, names, conversions):
        self.nodes = names.split("[nodes]\n")[1].split("[ties]\n")[0].splitlines()
        self.ties = names.split("[ties]\n")[1].split("[classes]\n")[0].splitlines()
        self.lines = [line.split(" ") for line in names.split("[classes]\n")[1].splitlines()]
        self.tables = {block.split("\n", 1)[0]: block.split("\n", 1)[1].rstrip("\n") for block in conversions.split("\n@")[1:]}
        self.forms = {}

    def below(self, node):
        if node not in self.forms:
            found = set()
            for token in self.nodes[node].split(" "):
                name, is_inner, inner = token.rpartition(":")
                found |= {f"{name}.{rest}" for rest in self.below(int(inner))} if is_inner else {token}
            self.forms[node] = found
        return self.forms[node]

    def add(self, records):
        """Gives every record the names that its class has already, and adds the classes that have none."""
        own = {record["name"]: record for record in records}
        for carried in self.records():
            record = own.get(carried["name"])
            if record is None or record["error"]:
                records.append(carried)
            else:
                for key in ("saved", "memory"):
                    record[key] = sorted({*record[key], *carried[key]})

    def records(self):
        for name, kind, prefix, saved, memory, conversion, tie in self.lines:
            yield {
                "name": name, "type": kind.removeprefix("-"), "prefix": prefix.removeprefix("-"), "error": None, "varied": [], "switches": 0, "builds": 0,
                "saved": sorted(self.below(int(saved))), "memory": sorted(self.below(int(memory))),
                "table": self.tables.get(conversion), "copies": self.ties[int(tie)] if tie != "-" else "",
            }


def packed(records, version):
    """The two files, and by class the names that no rule makes."""
    graph, sets, ties, classes, odd = Graph(), {}, {}, [], {}
    for record in sorted(completed(records), key=lambda record: record["name"]):
        if record["error"]:
            continue
        if "table" in record:
            text, tied = record["table"], record["copies"]
        else:
            rules, starts, left = converted(record)
            if left:
                odd[record["name"]] = left
            text = table(rules, starts) if rules or starts else None
            tied = " ".join([*(f"{form}=-" for form in record["ignored"] if form not in record["saved"]), *copies(record)])
        conversion = sets.setdefault(text, record["name"]) if text else "-"
        saved, memory = graph.add(record["saved"]), graph.add(record["memory"])
        tie = ties.setdefault(tied, len(ties)) if tied else "-"
        classes.append(f"{record['name']} {record['type'] or '-'} {record['prefix'] or '-'} {saved} {memory} {conversion} {tie}")
    head = HEAD.format(version=version)
    names = head + "\n".join(["[nodes]", *graph.lines, "[ties]", *ties, "[classes]", *classes]) + "\n"
    conversions = head + "\n".join(f"@{name}\n{text}" for text, name in sets.items()) + "\n"
    return names, conversions, odd


def main(*paths):
    import transformers

    records = [json.loads(line) for path in paths for line in pathlib.Path(path).read_text().splitlines()]
    if (FOLDER / "names.txt").exists():
        Carried((FOLDER / "names.txt").read_text(), (FOLDER / "conversions.txt").read_text()).add(records)
    names, conversions, odd = packed(records, transformers.__version__)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "names.txt").write_text(names)
    (FOLDER / "conversions.txt").write_text(conversions)
    for name, left in odd.items():
        print(f"{name}: {'; '.join(left[:4])}")
    switches, builds = (sum(record[key] for record in records) for key in ("switches", "builds"))
    print(f"{len(records)} classes, {sum(not r['error'] for r in records)} built, {switches} values of configs varied in {builds} builds")
    print(f"{len(names)} and {len(conversions)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
