"""``rnncore sample``: let a model write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rnncore.cli.console import reports_errors


@reports_errors
def sample(
    model: Annotated[Path, typer.Argument(help="Model file of `rnncore train`.")],
    prefix: Annotated[str, typer.Option(help="How the text begins.")] = "",
    length: Annotated[int, typer.Option(help="Most tokens to write; the model may end the text earlier.")] = 400,
    temperature: Annotated[float, typer.Option(help="Below 1 is more careful, 0 takes the likeliest token.")] = 0.7,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the tokens that together have this probability.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text; a new text each time without one.")] = None,
) -> None:
    """Write a text, one token at a time, without PyTorch; printed after its prefix."""
    from rnncore.runtime.text.language_model import LanguageModel

    language_model = LanguageModel.load(model)
    written = language_model.sample(length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, prefix=prefix)
    typer.echo(prefix + written)
