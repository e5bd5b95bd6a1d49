"""The conformance table as a page of Markdown, and back."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rnncore.conformance.backends import version_of
from rnncore.conformance.measuring import TOLERANCE, Row
from rnncore.conformance.models import ModelRow

_REASON_LENGTH = 150

_INTRO = """# Which program runs which file

Made by `python -m rnncore.conformance`; do not edit. Every cell of the table is a file that was written, run and compared
with PyTorch, with random weights, random initial states where the file streams, at (batch, time) = (3, 7), (1, 4) and
(1, 1); ragged batches have a row of no steps. The number is the largest error as a part of the largest answer (at least 1);
up to {tolerance:g} counts as right. ✗ with a number in brackets points to the reason below the table: either the program
refused the file, or **it answered wrong numbers without complaint**.

`loop` is the default form; `fused` is ONNX's own operator and exists only for the cells that it computes exactly;
`portable` is what `form="auto", target="portable"` writes where the fused operator is not right everywhere.

**What to use:** onnxruntime runs every form. For any other program export with `form="auto", target="portable"` (or its own
name as the target), then ask it: `rnncore verify FILE --backend openvino`. The files of "All files" are single
layers of 16 units over 40 features, below a head of 600: a program that is right there need not be right in a model.

**OpenVINO** was seen in an application to answer the first call at each new shape wrongly (errors up to 1e30; the second call
was right) for `form="loop"` below a layer about 600 wide. The models below, and others tried beside them (GRU of 200 and two
LSTM of 300 below heads of 600 and 640, ragged, six sizes), did not show it, so it may hang on the processor;
`target="openvino"` never writes loops. Its `Relu` gives 0 for NaN: an RNN with `activation="relu"` answers plausible numbers
there, in every form, where PyTorch and onnxruntime show the NaN; `rnncore verify FILE --backend openvino` says so of a file
with a `Relu` in it. Install openvino in an environment of its own: its own limits on NumPy may exclude other packages, and
`onnxruntime-openvino`, which is another thing, takes the place of onnxruntime.

Programs: {versions}; Python {python}.
"""


_MODELS = """## Whole models

Files of `export`, with states and lengths, asked the golden cases that they carry: one step, a ragged batch, and a stream in
chunks if the model is causal. int8 is compared with PyTorch in float32: up to 0.1 of root mean square error counts as right.
Each case is asked twice here and below, and the worse answer counts: a program may answer the first call at a shape otherwise
than the next.
"""


def page(rows: Iterable[Row], models: Iterable[ModelRow] = ()) -> str:
    """The whole page."""
    rows = list(rows)
    backends = list(rows[0].results)
    reasons: list[str] = []
    lines = [
        _INTRO.format(
            tolerance=TOLERANCE,
            versions=", ".join(f"{name} {version_of(name)}" for name in backends),
            python=platform.python_version(),
        ),
        *_summary(rows, backends),
        *_models(models, backends, reasons),
        "## All files",
        "",
        _line(["cell", "direction", "form", "lengths", *backends]),
        _line(["---"] * (4 + len(backends))),
    ]
    for row in rows:
        results = [_cell(row.results[backend], backend, reasons) for backend in backends]
        lines.append(_line([row.cell, row.direction, row.form, row.lengths, *results]))
    lines += ["", "## Reasons", "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)), ""]
    return "\n".join(lines)


def parse(text: str) -> list[Row]:
    """The rows of all files that a page holds, as :func:`page` was given them but for digits of errors."""
    found = _rows(text, ["cell", "direction", "form", "lengths"])
    return [Row(cell, direction, form, lengths, results) for (cell, direction, form, lengths), results in found]


def parse_models(text: str) -> list[ModelRow]:
    """The rows of whole models that a page holds."""
    return [ModelRow(model, form, results) for (model, form), results in _rows(text, ["model", "form"])]


def _rows(text: str, named: list[str]) -> Iterator[tuple[list[str], dict[str, float | str]]]:
    """The names and results of the rows of the table whose first columns are ``named``."""
    reasons = dict(re.findall(r"^(\d+)\. [\w-]+: (.*)$", text, re.MULTILINE))
    count, backends = len(named), list[str]()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")] if line[:1] == "|" else []
        if not cells:
            backends = []
        elif cells[:count] == named:
            backends = cells[count:]
        elif backends and cells[0] != "---":
            yield (
                cells[:count],
                {name: _result(cell, reasons) for name, cell in zip(backends, cells[count:], strict=True)},
            )


def _result(cell: str, reasons: Mapping[str, str]) -> float | str:
    mark, said = cell.split()
    return float(said) if mark == "✓" else reasons[said.strip("[]")].replace("\\*", "*")


def _summary(rows: Sequence[Row], backends: Sequence[str]) -> list[str]:
    lines = [
        "## Files that are right, by form",
        "",
        _line(["form", "lengths", *backends]),
        _line(["---"] * (2 + len(backends))),
    ]
    for form, lengths in dict.fromkeys((row.form, row.lengths) for row in rows):
        own = [row for row in rows if (row.form, row.lengths) == (form, lengths)]
        counts = [sum(isinstance(row.results[backend], float) for row in own) for backend in backends]
        lines.append(_line([form, lengths, *(f"{count} of {len(own)}" for count in counts)]))
    return [*lines, ""]


def _models(rows: Iterable[ModelRow], backends: Sequence[str], reasons: list[str]) -> list[str]:
    lines = [_MODELS, _line(["model", "form", *backends]), _line(["---"] * (2 + len(backends)))]
    for row in rows:
        results = [_cell(row.results[backend], backend, reasons) for backend in backends]
        lines.append(_line([row.model, row.form, *results]))
    return [*lines, ""]


def _cell(result: float | str, backend: str, reasons: list[str]) -> str:
    if isinstance(result, float):
        return f"✓ {result:.0e}"
    reason = f"{backend}: {general(result)}"
    if reason not in reasons:
        reasons.append(reason)
    return f"✗ [{reasons.index(reason) + 1}]"


def general(reason: str) -> str:
    """A reason without the names and sizes of one file, so that the same reason is told once."""
    reason = re.sub(r"wrong numbers \(error .*\)", "wrong numbers, without complaint", reason)
    reason = re.sub(r'#\d+ "[^"]*" ', "", reason)
    reason = re.sub(r"'?<Node\((\w+)\): [^>]*>'?", r"\1", reason)
    reason = re.sub(r"layers\.y\d+[\w./]*", "…", reason)
    reason = re.sub(r"\(\d+(, \d+)*\)|\(\d+\)", "(…)", reason)
    reason = re.sub(r"\b\w+-\d+\b", "…", reason)
    reason = re.sub(r"(?<=shape == ).*", "…", reason)
    if len(reason) > _REASON_LENGTH:
        reason = reason[:_REASON_LENGTH].rpartition(" ")[0] + " …"
    return reason.replace("|", "/").replace("*", "\\*")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
