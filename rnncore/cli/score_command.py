"""``rnncore score``: how likely is a text?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from rnncore.cli.console import AsJson, reports_errors, tell, text_argument


@reports_errors
def score(
    model: Annotated[Path, typer.Argument(help="Model file of `rnncore train`.")],
    text: Annotated[str, typer.Argument(help="The text to score; - reads it from standard input.")],
    eos: Annotated[
        bool, typer.Option("--eos", help="Score the end of the text too: how likely is it as a whole?")
    ] = False,
    total: Annotated[
        bool, typer.Option("--total", help="The sum only: reads many tokens in a call, for whole books.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the natural-log probability of a text, its perplexity, and the score of each character.

    The text is read as a stream, one token at a time (with --total many), without PyTorch.
    """
    from rnncore.runtime.errors import InputError
    from rnncore.runtime.text.language_model import LanguageModel

    text = text_argument(text)
    scorer = LanguageModel.load(model)
    scores = [] if total else scorer.token_scores(text, eos=eos)
    count = len(scorer.encode(text)) + eos if total else len(scores)
    if not count:
        raise InputError("the text is empty: hand in at least one character, or --eos")
    log_prob = scorer.score(text, eos=eos) if total else math.fsum(one.log_prob for one in scores)
    perplexity = math.exp(-log_prob / count)
    data: dict[str, Any] = {"log_prob": log_prob, "perplexity": perplexity}
    if total:
        data["count"] = count
    else:
        data |= {"text": text, "tokens": [{"token": one.token, "log_prob": one.log_prob} for one in scores]}
        if not as_json:  # plain lines: a table of rich takes a millisecond a row, more than the scoring
            typer.echo(f"{'token':10} log-probability  probability")
            for one in scores:
                typer.echo(f"{one.token!r:10} {one.log_prob:15.4f}  {math.exp(one.log_prob):11.4f}")
    told = f"log-probability  {log_prob:.4f}\nperplexity       {perplexity:.4f} over {count} tokens"
    tell(told, data, as_json)
