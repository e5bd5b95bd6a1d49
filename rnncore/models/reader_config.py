"""What a model reads, and through which recurrent layers, as data."""

from __future__ import annotations

from dataclasses import dataclass

from rnncore.models.cell_config import CellConfig
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import raise_all


@dataclass(frozen=True)
class ReaderConfig:
    """Everything that fixes a :class:`rnncore.models.Reader` except its weights; give exactly one of the first two.

    vocabulary_size: the input is token ids below it.
    features: the input is so many floats a step.
    cells: the stack, bottom first.
    embedding_size: features of one token; ignored for floats.
    bidirectional: every layer reads in both directions, with two cells of the same configuration.
    dropout: probability of zeroing a feature, while training: of the embedding, between the layers, of what comes out.
    variational: what is dropped is the same at all steps of a sequence, see :func:`rnncore.layers.dropout.dropout`; with few
        examples it often helps.
    weight_drop: probability of zeroing a recurrent weight for a whole batch, while training, see :class:`rnncore.Recurrent`.

    Raises:
        InputError: lists every value that is out of range.
    """

    cells: tuple[CellConfig, ...]
    vocabulary_size: int | None = None
    features: int | None = None
    embedding_size: int = 64
    bidirectional: bool = False
    dropout: float = 0.0
    variational: bool = False
    weight_drop: float = 0.0

    def __post_init__(self) -> None:
        given = {"vocabulary_size": self.vocabulary_size, "features": self.features}
        sizes = {name: size for name, size in given.items() if size is not None}
        every = {**sizes, "embedding_size": self.embedding_size}
        problems = [problem for name, size in every.items() for problem in count_problems(name, size)]
        if len(sizes) != 1:
            problems.append(
                f"vocabulary_size is {self.vocabulary_size} and features is {self.features}, expected one of them: "
                "vocabulary_size for token ids, features for floats"
            )
        if not self.cells:
            problems.append("cells is empty: a reader needs at least one recurrent layer")
        problems += [
            f"{name} is {value}, expected at least 0 and below 1"
            for name, value in (("dropout", self.dropout), ("weight_drop", self.weight_drop))
            if not 0.0 <= value < 1.0
        ]
        raise_all(problems)
