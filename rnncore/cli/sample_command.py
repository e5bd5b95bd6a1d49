"""``rnncore sample``: let a model write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rnncore.cli.console import AsJson, reports_errors, tell, text_argument, was_given
from rnncore.runtime.errors import InputError

_DRAWING = {"temperature": "--temperature", "top_k": "--top-k", "top_p": "--top-p", "seed": "--seed"}


@reports_errors
def sample(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="A language model, a generator, or a translator.")],
    prefix: Annotated[
        str, typer.Option(help="How the text begins, for a translator its source; - reads it from standard input.")
    ] = "",
    condition: Annotated[
        str | None, typer.Option(help="What a generator with conditions shall write.", show_default=False)
    ] = None,
    length: Annotated[int, typer.Option(help="Most tokens to write; the model may end the text earlier.")] = 400,
    temperature: Annotated[float, typer.Option(help="Below 1 is more careful, 0 takes the likeliest token.")] = 0.7,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k likeliest tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the tokens that together have this probability.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text; a new text each time without one.")] = None,
    beam: Annotated[
        int | None,
        typer.Option(help="Targets that a translator keeps in its search.  [default: 1]", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a text without PyTorch, printed after its prefix; of a translator, the translation of its prefix.

    Runs files of `rnncore train`, of export_model (generators), export_generator and export_translator.
    """
    from rnncore.runtime.opening import open as open_file
    from rnncore.runtime.tasks.generator import Generator
    from rnncore.runtime.text.generation import TextGenerator
    from rnncore.runtime.text.language_model import LanguageModel
    from rnncore.runtime.text.translator import Translator

    prefix = text_argument(prefix)
    writer = open_file(model)
    kind = type(writer).__name__
    if not isinstance(writer, LanguageModel | TextGenerator | Generator | Translator):
        raise InputError(f"{model} is a {kind}, expected a language model, a generator or a translator")
    drawing: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    if condition is not None and not isinstance(writer, Generator):
        raise InputError(f"--condition is for a generator with conditions, {model} is a {kind}: leave it out")
    if beam is not None and not isinstance(writer, Translator):
        raise InputError(f"--beam is for a translator, {model} is a {kind}: leave it out")
    if isinstance(writer, Translator):
        given = [option for name, option in _DRAWING.items() if was_given(context, name)]
        if given:
            raise InputError(f"{', '.join(given)}: a translator draws nothing, it takes what is likeliest: leave out")
        written = writer.translate(prefix, max_tokens=length, beam=1 if beam is None else beam)
    elif isinstance(writer, LanguageModel):
        written = writer.sample(length, prefix=prefix, **drawing)
    elif isinstance(writer, Generator):
        written = writer.generate(condition, length, prefix=prefix, **drawing)
    else:
        written = writer.generate(prefix, max_tokens=length, **drawing)
    if as_json:
        tell("", {"prefix": prefix, "written": written}, as_json)
    else:
        typer.echo(written if isinstance(writer, Translator) else prefix + written)
