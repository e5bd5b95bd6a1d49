"""docs/applications.md from the kept measurements, and the check that holds it to its floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.applications.record import Measured, saved

PAGE = Path(__file__).resolve().parents[2] / "docs" / "applications.md"

HEAD = """\
# Applications, measured

Made by `scripts/applications`, which trains every row anew (`scripts/applications NAME` for one; outside CI);
`scripts/applications --check` holds this table to its floors without training.

- Every data set comes through pip or apt into a cache folder; nothing of it is part of rnncore.
- It is split into examples to train with, to choose by (epochs, settings) and to test; nothing that is equal stands in two
  of them. The test set is asked once, by the exported file, without PyTorch; where it was asked again for another recipe, the
  row says so below, with what it said before.
- The baselines are on the same split: first what needs no model, then a classical one of a library that people would take.
- "int8" is the same metric of the 8-bit file. Sizes are those of the files. Training is by the clock, on one thread of a machine
  that others used as well; a step is time of the processor, one sequence at a time, text and all.
- A row is held to its floor by the check: a later measurement may not be worse.
"""

COLUMNS = (
    "application",
    "examples (train / valid / test)",
    "metric",
    "float32",
    "int8",
    "baselines",
    "beats them",
    "hoped for",
    "size (int8)",
    "training",
    "µs a step",
)


def write(names: Sequence[str]) -> None:
    """The page, from what is kept of every application that was measured."""
    PAGE.write_text(page(names), "utf-8")


def page(names: Sequence[str]) -> str:
    """The text of docs/applications.md."""
    kept = {name: saved(name) for name in names if _is_kept(name)}
    lines = [HEAD, "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for rows, _ in kept.values() for row in rows]
    lines += ["", "## What the rows are", ""]
    for rows, _ in kept.values():
        for row in rows:
            lines.append(f"- **{row.name}**: {row.data}. {row.note}".rstrip())
            if row.more:
                lines.append("  " + "; ".join(f"{name} {_number(value)}" for name, value in row.more.items()) + ".")
    missing = [f"`{name}`" for name in names if name not in kept]
    if missing:
        lines += ["", f"Written, and not measured yet: {', '.join(missing)}."]
    machines = sorted({machine for _, machine in kept.values()})
    return "\n".join([*lines, "", *(f"Measured on: {machine}." for machine in machines)]) + "\n"


def check(names: Sequence[str], floors: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One line for every row without a floor, floor without a row, row below its floor, and for a page that is not theirs."""
    problems = []
    for name in names:
        if not _is_kept(name):
            continue  # not measured yet: the page does not name it either
        rows = {row.name: row for row in saved(name)[0]}
        problems += [f"{name}: '{row}' has no floor" for row in rows.keys() - floors[name].keys()]
        problems += [
            f"{name}: nothing was measured for the floor of '{row}'" for row in floors[name].keys() - rows.keys()
        ]
        problems += [
            f"{name}: '{row}' has {rows[row].metric} {_number(rows[row].fp32)}, its floor is {_number(floor)}"
            for row, floor in floors[name].items()
            if row in rows and not rows[row].meets(floor)
        ]
    if not PAGE.exists() or PAGE.read_text("utf-8") != page(names):
        problems.append(f"docs/{PAGE.name} is not what the kept measurements say: scripts/applications --table")
    return problems


def _is_kept(name: str) -> bool:
    try:
        saved(name)
    except FileNotFoundError:
        return False
    return True


def _cells(row: Measured) -> tuple[str, ...]:
    size, small = row.bytes
    return (
        row.name,
        " / ".join(f"{n:,}" for n in row.sizes),
        row.metric + (" (less is better)" if row.lower else ""),
        f"**{_number(row.fp32)}**",
        "–" if row.int8 is None else _number(row.int8),
        "; ".join(f"{name} {_number(value)}" for name, value in row.baselines.items()),
        "yes" if row.beats_baselines() else "no",
        "–" if row.reach is None else f"{_number(row.reach)}, {'reached' if row.meets(row.reach) else 'missed'}",
        _bytes(size) + ("" if small is None else f" ({_bytes(small)})"),
        "–" if row.train_s is None else f"{row.train_s:.0f} s",
        f"{row.step_us:.0f} a {row.step}",
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
