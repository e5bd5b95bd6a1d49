"""The page of the zoo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.zoo.subject import ENTRIES

_OFF_LIST = Path(__file__).with_name("off_list.md")
_HEAD = """# The zoo: other people's classes

Public recurrent classes, untouched, with random weights, exported by the call of their README. `scripts/zoo` makes an
environment of its own, runs each class in a process of its own, and writes this page. A class *works* if the file gives
PyTorch's numbers within {relative:g} of the largest, at the example's size and three others, and, where the file streams, if
the chunks of a stream give the whole; an axis of 1 that PyTorch's own `squeeze()` drops stays in a file, and counts as
right. Each row is of the last run of its class: they were not all run with the same
version of the library. *Seconds* are processor seconds of `export()` on one thread. *Should* says whether the
class is causal.

{summary}

"""


def write_page(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """docs/zoo.md from the results by class."""
    built = {key: own for key, own in found.items() if own["state"] != "not built"}
    parts = (_HEAD.format(relative=1e-4, summary=_summary(built)), _table(built), _refusals(built), _left_out(found))
    path.write_text("".join((*parts, _OFF_LIST.read_text())))


def _summary(found: Mapping[str, Mapping[str, Any]]) -> str:
    states = Counter(own["state"] for own in found.values())
    working = [own for own in found.values() if own["state"] == "works"]
    should = [own for own in working if own["causal"]]
    streaming = sum(own["streams"] for own in should)
    packages = len({ENTRIES[key].package for key in found})
    share = 100 * len(working) / max(1, len(found))
    left = len(ENTRIES) - len(found)
    rest = (
        f" {left} further classes of the list could not be built in this environment, or were not run; which stands at the end."
        if left
        else ""
    )
    return (
        f"**{len(found)} classes of {packages} packages: {len(working)} work ({share:.0f} %), {states['refused']} refused, "
        f"{states['wrong']} wrong, {states['crashed']} crashed. Of {len(should)} working classes that are causal "
        f"{streaming} stream.**{rest}"
    )


def _table(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| package | class | result | streams | should | seconds |", "| --- | --- | --- | --- | --- | --- |"]
    for key, own in found.items():
        state = own["state"]
        if own.get("options"):
            state += " with " + ", ".join(f"`{name}=`" for name in own["options"])
        streams = "" if state not in ("works", "wrong") and "streams" not in own else _yes(own["streams"])
        seconds = f"{own['seconds']:.1f}" if "seconds" in own else ""
        line = (ENTRIES[key].package, f"`{ENTRIES[key].name}`", state, streams, _yes(own.get("causal")), seconds)
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines) + "\n"


def _yes(value: Any) -> str:
    return "yes" if value else "no"


def _refusals(found: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    for key, own in found.items():
        if own["state"] == "refused":
            parts.append(f"`{key}`:\n\n```\n{own['why'].strip()}\n```\n")
    batch_only = [
        f"- `{key}`: {own['why']}"
        for key, own in found.items()
        if own["state"] == "works" and own["causal"] and not own["streams"]
    ]
    text = ""
    if parts:
        text += "\n## What the refusals say\n\n" + "\n".join(parts)
    if batch_only:
        text += "\n## Causal, but batch only\n\n" + "\n".join(batch_only) + "\n"
    return text


def _left_out(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        f"- `{key}`: {found[key]['why'].splitlines()[0] if key in found else 'not run yet'}"
        for key in ENTRIES
        if key not in found or found[key]["state"] == "not built"
    ]
    return "\n## Not built, or not run\n\n" + "\n".join(lines) + "\n" if lines else ""
