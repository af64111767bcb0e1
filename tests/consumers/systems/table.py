"""Writes docs/compatibility.md's table of systems from what the last test run recorded.

    table.py [DOCUMENT]     replaces what stands between <!-- systems:begin --> and <!-- systems:end -->; without DOCUMENT, prints
"""
import collections
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from checked import RESULTS  # noqa: E402

BEGIN, END = "<!-- systems:begin -->", "<!-- systems:end -->"
PACKAGE = {"verl": "verl", "verl-megatron": "megatron-core", "megatron-lm": "megatron-core", "torchtune": "torchtune", "torchtitan": "torchtitan",
           "accelerate": "accelerate", "lightning": "lightning", "transformers": "transformers", "lingua": "torch", "meta": "torch", "mistral": "torch", "pytorch": "torch", "deepspeed": "deepspeed"}
HEAD = ("system", "family", "versions", "what the checkpoints hold", "compared with", "result")


def table(results):
    groups = collections.defaultdict(list)
    for _, case in sorted(results.items()):
        if not case.get("mistake"):
            groups[case["system"], case["family"]].append(case)
    lines = [row(HEAD), row("---" for _ in HEAD)]
    for (system, family), cases in sorted(groups.items()):
        versions = listed({f"{PACKAGE[system]} {c['versions'][PACKAGE[system]].split('+')[0]}" for c in cases})
        equal = sum(c["result"] == "equal" for c in cases)
        lines.append(row((system, family, versions, listed(c["notes"] for c in cases), listed(c["reference_by"] for c in cases), f"{equal} of {len(cases)} equal")))
    mistakes = collections.Counter(c["system"] for c in results.values() if c.get("mistake") and c["result"] == "refused")
    told = ", ".join(f"{system} {count}" for system, count in sorted(mistakes.items()))
    return "\n".join([*lines, "", f"Checkpoints with one mistake, each refused in one line: {told}."])


def row(cells):
    return "| " + " | ".join(cells) + " |"


def listed(texts):
    """Each text once, in order."""
    return "; ".join(dict.fromkeys(sorted(t.replace("|", "/") for t in texts if t)))


def main(document=None):
    text = table(json.loads(RESULTS.read_text()))
    if not document:
        print(text)
        return
    path = pathlib.Path(document)
    before, rest = path.read_text().split(BEGIN)
    _, after = rest.split(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
