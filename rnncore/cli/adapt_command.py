"""``rnncore adapt``: files of others, and files of ours that another tool has touched, become files of rnncore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnncore.cli.console import AsJson, reports_errors, tell


@reports_errors
def adapt(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    quantized: Annotated[
        bool, typer.Option("--quantized", help="It went through a quantiser: hold it to what int8 files are held to.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let an ONNX file stream whose LSTM, GRU and RNN nodes hide their states, or stamp a changed file of ours again.

    Chunks are compared with the whole, and a file of ours must answer its golden cases; otherwise nothing is written.
    """
    from rnncore.export import adapt as adapt_file

    report = adapt_file(model, out, quantized=quantized)
    data = {
        "path": str(report.path),
        "causal": report.signature.causal,
        "not_causal_because": report.signature.not_causal_because,
        "lifted": list(report.lifted),
        "max_error": report.max_error,
    }
    tell(str(report), data, as_json)
