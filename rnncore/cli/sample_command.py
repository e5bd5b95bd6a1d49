"""``rnncore sample``: let a model write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rnncore.cli.console import AsJson, reports_errors, tell, text_argument


@reports_errors
def sample(
    model: Annotated[Path, typer.Argument(help="A language model, or a generator in one call.")],
    prefix: Annotated[str, typer.Option(help="How the text begins; - reads it from standard input.")] = "",
    length: Annotated[int, typer.Option(help="Most tokens to write; the model may end the text earlier.")] = 400,
    temperature: Annotated[float, typer.Option(help="Below 1 is more careful, 0 takes the likeliest token.")] = 0.7,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the tokens that together have this probability.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text; a new text each time without one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a text, one token at a time, without PyTorch; printed after its prefix.

    Runs files of `rnncore train` and of rnncore.export.export_generator.
    """
    from rnncore.runtime.errors import InputError
    from rnncore.runtime.opening import open as open_file
    from rnncore.runtime.text.generation import TextGenerator
    from rnncore.runtime.text.language_model import LanguageModel

    prefix = text_argument(prefix)
    writer = open_file(model)
    if isinstance(writer, LanguageModel):
        options: dict[str, Any] = {"top_k": top_k, "top_p": top_p, "seed": seed}
        written = writer.sample(length, temperature=temperature, prefix=prefix, **options)
    elif isinstance(writer, TextGenerator):
        chosen = {
            name: value for name, value in (("top_k", top_k), ("top_p", top_p), ("seed", seed)) if value is not None
        }
        written = writer.generate(prefix, max_tokens=length, temperature=temperature, **chosen)
    else:
        raise InputError(f"{model} is a {type(writer).__name__}, expected a language model or a generator of text")
    if as_json:
        tell("", {"prefix": prefix, "written": written}, as_json)
    else:
        typer.echo(prefix + written)
