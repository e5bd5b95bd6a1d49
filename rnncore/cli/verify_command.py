"""``rnncore verify``: does a file still answer what PyTorch answered?"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from rnncore.cli.console import messages, model_argument, printable, reports_errors
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.limits import DEFAULT_LIMITS


@reports_errors
def verify(
    model: Annotated[Path, typer.Argument(help="A file that rnncore exported, - for standard input.")],
    backend: Annotated[
        str,
        typer.Option(help="What runs it: runtime (rnncore's own), onnxruntime, openvino, onnx-reference or tract."),
    ] = "runtime",
    public_key: Annotated[
        Path | None, typer.Option(help="Ed25519 public key in PEM: MODEL.sig must be a signature by its owner.")
    ] = None,
    limit_s: Annotated[
        int, typer.Option(min=1, help="Seconds that the file may take; it runs in a process that is stopped then.")
    ] = DEFAULT_LIMITS.verify_s,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the golden cases in a model file again, without PyTorch; exit with 1 if an answer differs.

    The cases were answered by PyTorch at export: whole sequences, a ragged batch, and a stream in chunks.  That they pass
    does not say who made the file: the fingerprint in it is a checksum, see "rnncore sign" for a signature.  Whatever runs
    the file, it runs in a process of its own that ends in time and memory.
    """
    limits = replace(DEFAULT_LIMITS, verify_s=limit_s)
    notes: list[str] = []
    given = model_argument(model)
    if backend == "runtime":
        from rnncore.runtime.verification import verify as verify_here

        report = verify_here(given, limits=limits, isolated=True, public_key=public_key)
    elif isinstance(given, bytes):
        raise InputError(f"standard input: {backend} reads a file, only the runtime takes a model from there")
    else:
        from rnncore.conformance.driver import verify_on
        from rnncore.conformance.known_faults import known_faults

        report = verify_on(model, backend, limits=limits, isolated=True, public_key=public_key)
        notes = known_faults(model, backend, limits)
    shown = json.dumps({**asdict(report), "passed": report.passed}) if as_json else printable(report, 100_000)
    typer.echo(shown)
    for note in notes:
        messages().print(f"note: {note}")
    if not report.passed:
        messages().print(f"error: {model} does not answer on {report.backend} what PyTorch answered at export")
        if backend not in ("runtime", "onnxruntime"):
            messages().print('hint: export it with form="auto", target="portable", which other programs run right')
        raise typer.Exit(1)
