"""``rnncore plot``: gates, surprisal and learning curves as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnncore.cli.console import AsJson, output, reports_errors, tell, text_argument
from rnncore.runtime.errors import InputError, MissingExtraError

plot_app = typer.Typer(
    help="Draw what a model does: its gates, its surprise, how it learnt.", no_args_is_help=True, rich_markup_mode=None
)


@plot_app.command()
@reports_errors
def gates(
    checkpoint: Annotated[Path, typer.Argument(help="The .pt file that `rnncore train` writes beside the model.")],
    text: Annotated[
        list[str], typer.Option(help="What the model reads, - for standard input; several are drawn side by side.")
    ],
    out: Annotated[Path, typer.Option(help="Picture: .png, .svg or .pdf.")] = Path("gates.png"),
    layer: Annotated[int | None, typer.Option(help="From 0, the lowest.  [default: the top one]")] = None,
    units: Annotated[str, typer.Option(help="How many (those that change most), or which: 3,17,5.")] = "16",
    show: Annotated[
        str | None, typer.Option(help="Gates and states: input,forget,c.  [default: all]", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw gate activations and cell states over a text as heat maps."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("torch", "train", "rnncore plot gates") from None
    from rnncore.cli.plot_sources import load_language_model
    from rnncore.plots.gate_map import plot_gates
    from rnncore.plots.text_gates import text_gates

    model, vocabulary = load_language_model(checkpoint)
    recorded = [text_gates(model, vocabulary, one, layer) for one in map(text_argument, text)]
    kind = type(model.stack.layers[-1 if layer is None else layer].cell).__name__
    plot_gates(
        recorded,
        out,
        units=_units(units),
        names=None if show is None else [name.strip() for name in show.split(",")],
        title=f"{checkpoint.name}: {kind}, layer {len(model.stack.layers) - 1 if layer is None else layer}",
    )
    tell(f"wrote {out}", {"wrote": str(out)}, as_json)


@plot_app.command()
@reports_errors
def surprisal(
    model: Annotated[Path, typer.Argument(help="Model file of `rnncore train`.")],
    text: Annotated[str, typer.Argument(help="The text; - reads it from standard input.")],
    out: Annotated[
        Path | None, typer.Option(help="Page to write: .html.  [default: the terminal only]", show_default=False)
    ] = None,
    eos: Annotated[bool, typer.Option("--eos", help="The end of the text too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Colour each token by its surprisal, -log2 of its probability, without PyTorch."""
    from rnncore.plots.surprisal import as_html, as_terminal_text, surprisal
    from rnncore.runtime.format.atomic import replacing
    from rnncore.runtime.text.language_model import LanguageModel

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out is {str(out)!r}, expected a name that ends in .html")
    surprises = surprisal(LanguageModel.load(model), text_argument(text), eos=eos)
    if not as_json:
        output().print(as_terminal_text(surprises))
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(as_html(surprises, f"Surprisal of {model.name}"), encoding="utf-8")
    if as_json:
        tokens = [{"piece": one.piece, "bits": one.bits} for one in surprises]
        tell("", {"tokens": tokens, "wrote": None if out is None else str(out)}, as_json)
    elif out is not None:
        output().print(f"wrote {out}")


@plot_app.command()
@reports_errors
def learning(
    source: Annotated[Path, typer.Argument(help="metrics.csv of a training, or its checkpoint (.pt).")],
    out: Annotated[Path, typer.Option(help="Picture: .png, .svg or .pdf.")] = Path("curve.png"),
    as_json: AsJson = False,
) -> None:
    """Draw the losses and metrics of a training, epoch by epoch."""
    from rnncore.plots.learning import plot_learning

    if source.suffix == ".csv":
        plot_learning(source, out)
    else:
        from rnncore.cli.plot_sources import load_history

        plot_learning(load_history(source), out)
    tell(f"wrote {out}", {"wrote": str(out)}, as_json)


def _units(text: str) -> int | list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--units is {text!r}, expected a number, or numbers with commas between") from None
    return numbers[0] if len(numbers) == 1 and "," not in text else numbers
