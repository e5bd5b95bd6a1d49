"""The size and shape of a language model, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise

from rnncore.models.cell_config import CellConfig
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all


@dataclass(frozen=True)
class LanguageModelConfig:
    """Everything that fixes a :class:`rnncore.models.LanguageModel` except its weights.

    vocabulary_size: number of tokens.
    embedding_size: features of one token.
    cells: the stack, bottom first.
    dropout: probability of zeroing a feature, while training: of the embedding, between the layers, before the head.
    tied: the head shares the embedding's weights; the top layer must then give embedding_size features.
    cutoffs: for large vocabularies: where an adaptive softmax (Grave et al., 2017) cuts the tokens, frequent ones first;
        rising, below vocabulary_size.  Training then computes the rare tokens only where they occur.  () for one matrix.

    Raises:
        InputError: lists every value that is out of range.
    """

    vocabulary_size: int
    embedding_size: int
    cells: tuple[CellConfig, ...]
    dropout: float = 0.0
    tied: bool = False
    cutoffs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        problems = count_problems("vocabulary_size", self.vocabulary_size)
        problems += count_problems("embedding_size", self.embedding_size)
        if not self.cells:
            problems.append("cells is empty: a language model needs at least one recurrent layer")
        if not 0.0 <= self.dropout < 1.0:
            problems.append(f"dropout is {self.dropout}, expected at least 0 and below 1")
        bounds = (0, *self.cutoffs, self.vocabulary_size)
        if self.cutoffs and any(not low < high for low, high in pairwise(bounds)):
            problems.append(f"cutoffs are {self.cutoffs}, expected rising numbers from 1 to {self.vocabulary_size - 1}")
        if self.tied and self.cutoffs:
            problems.append("tied weights need one matrix as head: leave out either tied or cutoffs")
        raise_all(problems)

    def to_json(self) -> str:
        """JSON text; :meth:`from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LanguageModelConfig:
        """Read :meth:`to_json` text; raises InputError when it is not such a text."""
        try:
            data = json.loads(text)
            cells = tuple(CellConfig(**cell) for cell in data.pop("cells"))
            return cls(cells=cells, cutoffs=tuple(data.pop("cutoffs", ())), **data)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InputError(f"not the JSON of a language model's configuration ({error!r})") from None
