"""Surprisal as coloured text: the numbers, the colours, the page."""

from __future__ import annotations

import html
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.plots.surprisal import MOST_BITS, Surprise, as_html, as_terminal_text, colour, surprisal
from tests.language_models import CHARACTERS, runtime_model
from tests.tolerances import fixed

TEXTS = st.text(CHARACTERS, max_size=20)


@given(TEXTS, st.booleans())
def test_surprisals_are_the_scores_in_bits(text: str, eos: bool) -> None:
    model = runtime_model()
    surprises = surprisal(model, text, eos=eos)
    assert "".join(one.piece for one in surprises) == text + "<eos>" * eos
    assert -math.log(2.0) * sum(one.bits for one in surprises) == pytest.approx(
        model.score(text, eos=eos), abs=fixed("float32 score")
    )


@given(TEXTS)
def test_the_page_holds_the_text_and_every_number(text: str) -> None:
    surprises = surprisal(runtime_model(), text)
    page = as_html(surprises, "<What> & why")
    assert "<title>&lt;What&gt; &amp; why</title>" in page
    (tokens,) = re.findall(r'<p class="text">(.*?)</p>', page, re.DOTALL)
    assert html.unescape(re.sub("<[^>]*>", "", tokens)) == text
    bits = [float(number) for number in re.findall(r'title="([\d.]+) bits', tokens)]
    assert bits == [round(one.bits, 2) for one in surprises]
    shown = re.findall(r'data-bits="([\d.]*)"', tokens)
    assert shown == ["" if "\n" in one.piece else f"{one.bits:.0f}" for one in surprises]
    rows = [float(number) for number in re.findall(r"<tr><td>([\d.]+)</td>", page)]
    assert rows == [round(one, 2) for one in sorted((one.bits for one in surprises), reverse=True)[:10]]


@given(st.floats(0, 40), st.floats(0, 40))
def test_colours_grow_stronger_with_surprise(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for channel in (1, 2):
        assert colour(low)[channel] >= colour(high)[channel]
    assert colour(0.0) == (255, 255, 255)
    assert colour(math.inf) == colour(MOST_BITS) == colour(MOST_BITS + 1)


def test_on_a_terminal() -> None:
    text = as_terminal_text([Surprise("The", 0.0), Surprise(" cat", 12.0), Surprise("!", 6.0)])
    assert text.plain.startswith("The cat!\n")
    assert "3 tokens, 6.00 bits each on average (perplexity 64.00)" in text.plain
    assert [str(span.style) for span in text.spans[:2]] == ["black on rgb(255,255,255)", "black on rgb(222,45,38)"]
    assert "no tokens" in as_terminal_text([]).plain
    assert "perplexity infinite" in as_html([Surprise("x", math.inf)])
