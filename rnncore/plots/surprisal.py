"""How surprised a language model is by each token of a text: as coloured text, without PyTorch."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnncore.runtime.text.language_model import LanguageModel
from rnncore.runtime.text.special_tokens import EOS

if TYPE_CHECKING:
    from rich.text import Text

MOST_BITS = 12.0
"""Surprisal of the strongest colour; beyond it there is no stronger one."""

_PALE, _STRONG = (255, 255, 255), (222, 45, 38)
_LEGEND_STEPS = (0, 2, 4, 6, 8, 10, 12)
_LARGEST = 700.0
_WIDE_ENOUGH = 3  # characters of a token under which a number with a decimal has room
_ROWS, _CONTEXT = 10, 40


@dataclass(frozen=True)
class Surprise:
    """One token: the piece of the text it stands for, and ``-log2 P(token | those before)``."""

    piece: str
    bits: float


def surprisal(model: LanguageModel, text: str, *, eos: bool = False) -> list[Surprise]:
    """Surprisal of each token of ``text``, and of its end with ``eos``.

    Raises:
        UnknownTokenError: the text holds something the vocabulary lacks.
    """
    scores = model.token_scores(text, eos=eos)
    pieces = [*model.vocabulary.pieces(text), *([EOS] if eos else [])]
    return [Surprise(piece, -one.log_prob / math.log(2.0)) for piece, one in zip(pieces, scores, strict=True)]


def colour(bits: float) -> tuple[int, int, int]:
    """Red, green and blue of a background: white at 0 bits, red from :data:`MOST_BITS` on."""
    strength = min(max(bits / MOST_BITS, 0.0), 1.0) if math.isfinite(bits) else 1.0
    red, green, blue = (round(pale + strength * (strong - pale)) for pale, strong in zip(_PALE, _STRONG, strict=True))
    return red, green, blue


def as_terminal_text(surprises: Sequence[Surprise]) -> Text:
    """Black on a background that is redder the more surprising the token; with a legend and the mean."""
    from rich.text import Text

    text = Text()
    for one in surprises:
        text.append(one.piece, style=_style(one.bits))
    text.append("\n\nbits: ")
    for bits in _LEGEND_STEPS:
        text.append(f" {bits}{'+' if bits >= MOST_BITS else ''} ", style=_style(bits))
    text.append(f"\n{_summary(surprises)}")
    return text


def as_html(surprises: Sequence[Surprise], title: str = "Surprisal") -> str:
    """A whole page: bits under every token, more digits when the mouse is over it, and a table of the largest."""
    tokens = "".join(
        f'<span style="background:rgb{colour(one.bits)}" data-bits="{_short(one)}" '
        f'title="{one.bits:.2f} bits, P = {2.0**-one.bits:.3g}">'
        f"{html.escape(one.piece)}</span>"
        for one in surprises
    )
    legend = "".join(
        f'<span class="key" style="background:rgb{colour(bits)}">{bits}{"+" if bits >= MOST_BITS else ""}</span>'
        for bits in _LEGEND_STEPS
    )
    return _PAGE.format(
        title=html.escape(title), tokens=tokens, legend=legend, summary=_summary(surprises), largest=_largest(surprises)
    )


def _short(one: Surprise) -> str:
    """The number under a token, no wider than the token: without decimals under a letter, nothing where a line ends."""
    if "\n" in one.piece or not math.isfinite(one.bits):
        return ""
    return f"{one.bits:.0f}" if len(one.piece) < _WIDE_ENOUGH else f"{one.bits:.1f}"


def _largest(surprises: Sequence[Surprise]) -> str:
    """Rows of the tokens with most bits, each with what stands before it."""
    order = sorted(range(len(surprises)), key=lambda place: -surprises[place].bits)[:_ROWS]
    rows = []
    for place in order:
        before = "".join(one.piece for one in surprises[max(0, place - _CONTEXT) : place])[-_CONTEXT:]
        one = surprises[place]
        rows.append(
            f"<tr><td>{one.bits:.2f}</td><td>{2.0**-one.bits:.2g}</td>"
            f'<td class="before">{html.escape(before)}<b>{html.escape(one.piece)}</b></td></tr>'
        )
    return "".join(rows)


def _summary(surprises: Sequence[Surprise]) -> str:
    if not surprises:
        return "no tokens"
    mean = sum(one.bits for one in surprises) / len(surprises)
    perplexity = f"{2.0**mean:.2f}" if mean < _LARGEST else "infinite"
    return f"{len(surprises)} tokens, {mean:.2f} bits each on average (perplexity {perplexity})"


def _style(bits: float) -> str:
    red, green, blue = colour(bits)
    return f"black on rgb({red},{green},{blue})"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; color: #000; background: #fff; }}
.text {{ font: 1.25em/2.5 monospace; letter-spacing: 0.35em; white-space: pre-wrap; overflow-wrap: anywhere; }}
.text span {{ padding: 0.15em 0; border-right: 1px solid #fff; position: relative; }}
.text span::after {{ content: attr(data-bits); position: absolute; left: 0; top: 2.5em; font-size: 0.52em;
  letter-spacing: 0; line-height: 1; color: #444; white-space: nowrap; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: 0.15em 0.8em; text-align: right; border-bottom: 1px solid #ddd; }}
td.before, th.before {{ text-align: left; font-family: monospace; white-space: pre-wrap; }}
.key {{ padding: 0.2em 0.6em; border: 1px solid #ddd; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="text">{tokens}</p>
<p>bits: {legend}</p>
<p>{summary}. The redder a token, the less the model expected it after those before; the numbers are bits.</p>
<table>
<tr><th>bits</th><th>P</th><th class="before">the most surprising, after what stands before them</th></tr>
{largest}
</table>
</body>
</html>
"""
