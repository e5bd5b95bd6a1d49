"""What ``rnncore train`` has made, shown by the runtime that needs no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rnncore.runtime.text.language_model import LanguageModel

_SHOWN_CHARACTERS = 72
_SAMPLES = 3
_SAMPLE_TOKENS = 300
_TEMPERATURE = 0.5


def show_summary(console: Console, path: Path, held_out: Sequence[str]) -> None:
    """Load the file and print size, verification, held-out perplexity, a scored sentence and samples.

    Args:
        console: where to print.
        path: the model file.
        held_out: texts the model was not trained on.
    """
    model = LanguageModel.load(path)
    cases = model.model.report.get("cases", [])
    worst = max((case["max_abs"] for case in cases), default=math.nan)
    log_prob = sum(model.score(text, eos=True) for text in held_out)
    tokens = sum(len(model.encode(text)) + 1 for text in held_out)
    characters = sum(len(text) + 1 for text in held_out)
    per_character = (
        "" if model.vocabulary.is_character_level else f", {math.exp(-log_prob / characters):.3f} a character"
    )
    bits = -log_prob / characters / math.log(2.0)
    sentence = _beginning(max(held_out, key=len))
    backwards = model.decode(model.encode(sentence)[::-1])
    lines = {
        "file": f"{path}, {path.stat().st_size / 1e6:.2f} MB",
        "verified": f"{len(cases)} comparisons with PyTorch at other sizes and chunkings, largest error {worst:.1e}",
        "held-out": f"perplexity {math.exp(-log_prob / tokens):.3f}{per_character} "
        f"over {tokens} tokens of {len(held_out)} texts; {bits:.3f} bits a character",
        "score": f"{model.score(sentence):9.3f}  {sentence!r}",
        "backwards": f"{model.score(backwards):9.3f}  {backwards!r}",
    }
    if model.vocabulary.unk_id is not None:
        unknown = sum(model.encode(text).tolist().count(model.vocabulary.unk_id) for text in held_out)
        lines["unknown"] = f"{unknown / tokens:.1%} of the held-out tokens, which all count as one word"
    console.print("\nComputed from the file, without PyTorch:")
    for name, value in lines.items():
        console.print(f"  {name:9}  {value}")
    console.print(f"\nIt writes (temperature {_TEMPERATURE}):")
    for seed in range(_SAMPLES):
        console.print("  " + model.sample(_SAMPLE_TOKENS, temperature=_TEMPERATURE, seed=seed).replace("\n", "\n  "))
    console.print(f'\nTry:  rnncore score {path} "..."    rnncore sample {path}    rnncore inspect {path}')


def _beginning(text: str) -> str:
    """The first words, on one line where possible."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return text[:_SHOWN_CHARACTERS].rpartition(" ")[0] or text[:_SHOWN_CHARACTERS]
