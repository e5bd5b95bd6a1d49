"""``rnncore inspect``: what a model file says about itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from rnncore.cli.console import model_argument, output, printable, reports_errors
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.format.signature import Signature
from rnncore.runtime.opening import class_of
from rnncore.runtime.tensors.ports import ports_of

if TYPE_CHECKING:
    from rnncore.runtime.model import Model

_UNPRINTABLE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What JSON leaves as it is and a terminal obeys: control characters beyond ASCII, and those that turn the direction of text."""


@reports_errors
def inspect(
    model: Annotated[Path, typer.Argument(help="A file that rnncore exported, - for standard input.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="All metadata as one JSON document, for hosts that cannot read them.")
    ] = False,
) -> None:
    """Print the signature and the verification report of a model file, without PyTorch."""
    from rnncore.runtime.format.document import document_of
    from rnncore.runtime.model import load

    given = model_argument(model)
    loaded = load(given)
    if as_json:
        text = json.dumps(document_of(loaded.metadata), ensure_ascii=False, indent=1)
        typer.echo(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
        return
    console = output()
    for place, table in enumerate(_tables(loaded, given)):
        if place:
            console.print()
        console.print(table)


@only_own_errors(ModelFileError, "reading what the file says about itself")
def _tables(loaded: Model, given: Path | bytes) -> list[Table]:
    return [_summary(loaded, given), _signature_table(loaded), _report_table(loaded.report)]


def _summary(model: Model, given: Path | bytes) -> Table:
    signature = model.signature
    table = Table(box=None, pad_edge=False, show_header=False)
    size = len(given) if isinstance(given, bytes) else given.stat().st_size
    rows = {
        "file": "standard input" if isinstance(given, bytes) else str(given),
        "size": f"{size / 1e6:.2f} MB",
        "form": model.metadata.get("rnncore.form", "?"),
        **{f"layer {name}": f"{c['form']}, because {c['reason']}" for name, c in _choices(model).items()},
        "precision": model.metadata.get("rnncore.precision", "?"),
        "streams": _streams(signature),
        "opens as": class_of(model).__name__,
        "fingerprint": model.fingerprint,
    }
    for name, value in rows.items():
        _add_row(table, name, value)
    return table


def _streams(signature: Signature) -> str:
    if not signature.causal:
        return f"no: {signature.not_causal_because}"
    at_a_time = f", {signature.stride} steps at a time" if signature.stride > 1 else ""
    before = f", the first answer after {signature.overlap + signature.stride} steps" if signature.overlap else ""
    return f"yes{at_a_time}{before}"


def _choices(model: Model) -> dict[str, dict[str, str]]:
    """The form of each layer and why, in a file of form="auto"."""
    choices: dict[str, dict[str, str]] = json.loads(model.metadata.get("rnncore.form_choices", "{}"))
    return choices


def _signature_table(model: Model) -> Table:
    table = Table(
        "role", "name", "dtype", "shape", "note", title="Signature", title_justify="left", box=None, pad_edge=False
    )
    for port in ports_of(model.signature):
        _add_row(table, *port)
    return table


def _report_table(report: dict[str, Any]) -> Table:
    cases = report.get("cases", [])
    if not cases:
        table = Table(title="Verification", title_justify="left", box=None, pad_edge=False, show_header=False)
        _add_row(table, "not verified at export")
        return table
    versions = ", ".join(f"{name} {version}" for name, version in report.get("versions", {}).items())
    table = Table(
        title=printable(
            f"Verification against PyTorch: {len(cases)} cases, seed {report.get('seed')}, "
            f"tolerance {report.get('tolerance')} relative ({versions})"
        ),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for name in ("kind", "detail"):
        table.add_column(name)
    for name in ("batch", "time", "max abs error", "max rel error"):
        table.add_column(name, justify="right")
    table.add_column("result")
    for case in cases:
        result = "passed" if case.get("passed") else "FAILED"
        note = case.get("note", "")
        _add_row(
            table,
            str(case.get("kind")),
            str(case.get("detail", "")),
            str(case.get("batch")),
            str(case.get("time")),
            f"{case.get('max_abs', float('nan')):.2g}",
            f"{case.get('max_rel', float('nan')):.2g}",
            f"{result}: {note}" if note else result,
        )
    return table


def _add_row(table: Table, *cells: object) -> None:
    table.add_row(*(printable(cell).replace("\n", "\\n") for cell in cells))
