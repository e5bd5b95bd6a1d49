"""The commands, put together."""

from __future__ import annotations

import typer

from rnncore.cli.inspect_command import inspect
from rnncore.cli.plot_command import plot_app
from rnncore.cli.sample_command import sample
from rnncore.cli.score_command import score
from rnncore.cli.sign_command import sign
from rnncore.cli.train_command import train
from rnncore.cli.verify_command import verify

app = typer.Typer(
    help="Recurrent networks: train one, ship it as one ONNX file, run it without PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (train, score, sample, inspect, verify, sign):
    app.command()(command)
app.add_typer(plot_app, name="plot")
