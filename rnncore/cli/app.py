"""The commands, put together."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from rnncore.cli.adapt_command import adapt
from rnncore.cli.export_command import export
from rnncore.cli.inspect_command import inspect
from rnncore.cli.plot_command import plot_app
from rnncore.cli.quantize_command import quantize
from rnncore.cli.sample_command import sample
from rnncore.cli.score_command import score
from rnncore.cli.sign_command import sign
from rnncore.cli.train_command import train
from rnncore.cli.verify_command import verify

app = typer.Typer(
    help="Recurrent networks: train one, ship it as one ONNX file, run it without PyTorch.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"rnncore {version('rnncore')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in (train, export, score, sample, inspect, verify, sign, adapt, quantize):
    app.command()(command)
app.add_typer(plot_app, name="plot")
