"""What ``rnncore train`` has made, told by the runtime that needs no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rnncore.runtime.text.language_model import LanguageModel

_SHOWN_CHARACTERS = 72
_SAMPLES = 3
_SAMPLE_TOKENS = 300
_TEMPERATURE = 0.5


@dataclass(frozen=True)
class HeldOut:
    """How likely the texts are that the model was not trained on; unknown: tokens that count as one word, None if none can."""

    texts: int
    tokens: int
    characters: int
    log_prob: float
    unknown: int | None

    @classmethod
    def of(cls, model: LanguageModel, texts: Sequence[str]) -> HeldOut:
        """Ends of texts count as tokens and as characters."""
        encoded = [model.encode(text).tolist() for text in texts]
        unknown = model.vocabulary.unk_id
        return cls(
            len(texts),
            sum(len(ids) + 1 for ids in encoded),
            sum(len(text) + 1 for text in texts),
            sum(model.score(text, eos=True) for text in texts),
            None if unknown is None else sum(ids.count(unknown) for ids in encoded),
        )

    def perplexity(self, per: int) -> float:
        """Per so many tokens or characters."""
        return math.exp(-self.log_prob / per)

    @property
    def bits(self) -> float:
        """A character."""
        return -self.log_prob / self.characters / math.log(2.0)


@dataclass(frozen=True)
class Summary:
    """A trained file: its size, its verification, what it makes of held-out texts, and some of its own."""

    path: Path
    size_bytes: int
    cases: int
    max_abs: float
    is_character_level: bool
    held_out: HeldOut
    scored: tuple[tuple[str, float], tuple[str, float]]
    samples: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, held_out: Sequence[str]) -> Summary:
        """Load the file, score ``held_out`` and a sentence forwards and backwards, and write some samples."""
        model = LanguageModel.load(path)
        cases = model.model.report.get("cases", [])
        sentence = _beginning(max(held_out, key=len))
        backwards = model.decode(model.encode(sentence)[::-1])
        return cls(
            path,
            path.stat().st_size,
            len(cases),
            max((case["max_abs"] for case in cases), default=math.nan),
            model.vocabulary.is_character_level,
            HeldOut.of(model, held_out),
            ((sentence, model.score(sentence)), (backwards, model.score(backwards))),
            tuple(model.sample(_SAMPLE_TOKENS, temperature=_TEMPERATURE, seed=seed) for seed in range(_SAMPLES)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is not a number is None."""
        held_out = self.held_out
        numbers = {"perplexity": held_out.perplexity(held_out.tokens), "bits_per_character": held_out.bits}
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "cases": self.cases,
            "max_abs": None if math.isnan(self.max_abs) else self.max_abs,
            "held_out": {**asdict(held_out), **numbers},
            "samples": list(self.samples),
        }

    def show(self, console: Console) -> None:
        """Print it."""
        held_out = self.held_out
        per_character = (
            "" if self.is_character_level else f", {held_out.perplexity(held_out.characters):.3f} a character"
        )
        (sentence, forwards), (reversed_sentence, backwards) = self.scored
        lines = {
            "file": f"{self.path}, {self.size_bytes / 1e6:.2f} MB",
            "verified": f"{self.cases} comparisons with PyTorch at other sizes and chunkings, largest error {self.max_abs:.1e}",
            "held-out": f"perplexity {held_out.perplexity(held_out.tokens):.3f}{per_character} "
            f"over {held_out.tokens} tokens of {held_out.texts} texts; {held_out.bits:.3f} bits a character",
            "score": f"{forwards:9.3f}  {sentence!r}",
            "backwards": f"{backwards:9.3f}  {reversed_sentence!r}",
        }
        if held_out.unknown is not None:
            part = held_out.unknown / held_out.tokens
            lines["unknown"] = f"{part:.1%} of the held-out tokens, which all count as one word"
        console.print("\nComputed from the file, without PyTorch:")
        for name, value in lines.items():
            console.print(f"  {name:9}  {value}")
        console.print(f"\nIt writes (temperature {_TEMPERATURE}):")
        for sample in self.samples:
            console.print("  " + sample.replace("\n", "\n  "))
        console.print(
            f'\nTry:  rnncore score {self.path} "..."    rnncore sample {self.path}    rnncore inspect {self.path}'
        )


def _beginning(text: str) -> str:
    """The first words, on one line where possible."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return text[:_SHOWN_CHARACTERS].rpartition(" ")[0] or text[:_SHOWN_CHARACTERS]
