"""``rnncore score``: how likely is a text?"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from rnncore.cli.console import reports_errors


@reports_errors
def score(
    model: Annotated[Path, typer.Argument(help="Model file of `rnncore train`.")],
    text: Annotated[str, typer.Argument(help="The text to score; - reads it from standard input.")],
    eos: Annotated[
        bool, typer.Option("--eos", help="Score the end of the text too: how likely is it as a whole?")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the natural-log probability of a text, its perplexity, and the score of each character.

    The text is read as a stream, one token at a time, without PyTorch.
    """
    from rnncore.runtime.errors import InputError
    from rnncore.runtime.text.language_model import LanguageModel

    if text == "-":
        text = sys.stdin.read().removesuffix("\n")
    scores = LanguageModel.load(model).token_scores(text, eos=eos)
    if not scores:
        raise InputError("the text is empty: hand in at least one character, or --eos")
    log_prob = math.fsum(one.log_prob for one in scores)
    perplexity = math.exp(-log_prob / len(scores))
    if as_json:
        tokens = [{"token": one.token, "log_prob": one.log_prob} for one in scores]
        typer.echo(json.dumps({"text": text, "log_prob": log_prob, "perplexity": perplexity, "tokens": tokens}))
        return
    # Plain lines: a table of rich takes a millisecond a row, more than the scoring.
    typer.echo(f"{'token':10} log-probability  probability")
    for one in scores:
        typer.echo(f"{one.token!r:10} {one.log_prob:15.4f}  {math.exp(one.log_prob):11.4f}")
    typer.echo(f"log-probability  {log_prob:.4f}\nperplexity       {perplexity:.4f} over {len(scores)} tokens")
