"""What the estimators share: reading ``X``, training by ``fit``, answering in batches of like length, exporting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from rnncore.cells import Cell
from rnncore.models import CellConfig, Classifier, Embedder, ReaderConfig, pad_sequences
from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError
from rnncore.runtime.text.vocabulary import Vocabulary
from rnncore.sklearn.inputs import Inputs, is_table, is_table_of_lists, learn_inputs
from rnncore.training import Observer, fit

_ROWS = 256


class SequenceEstimator(BaseEstimator):
    """The base of :class:`SequenceClassifier` and :class:`SequenceEmbedder`; see there."""

    cell: str | type[Cell]
    hidden_size: int
    layers: int
    bidirectional: bool
    embedding_size: int
    dropout: float
    reads: str
    vocabulary: str | Vocabulary
    epochs: int
    batch: int
    learning_rate: float
    validation_fraction: float
    patience: int | None
    random_state: Any
    module_: Any
    inputs_: Inputs

    @property
    def vocabulary_(self) -> Vocabulary | None:
        """The tokens of an estimator that was fitted to texts or lists of tokens; None if it was fitted to numbers."""
        check_is_fitted(self)
        return self.inputs_.vocabulary

    def export(self, path: str | Path, **options: Any) -> Any:
        """Write the fitted model for its class without PyTorch, and return the report.

        Args:
            path: file to write.
            options: as for :func:`rnncore.export.export_model`.
        """
        from rnncore.export import export_model

        check_is_fitted(self)
        return export_model(self.module_, path, vocabulary=self.vocabulary_, **options)

    def _fitting(self, X: Any, y: Any) -> tuple[list[Array], Array]:
        """Sequences and their labels; sets what :meth:`_reading` needs."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        if self.reads != "ids" and (is_table(X) or is_table_of_lists(X)):
            X, y = validate_data(self, X, y, dtype=np.float32)
            self.inputs_ = Inputs("floats", 1)
            return [row[:, None] for row in X], y
        for name in ("n_features_in_", "feature_names_in_"):  # of a fit to a table before this one
            self.__dict__.pop(name, None)
        check_consistent_length(X, y)
        y = column_or_1d(y, warn=True)
        rows = list(X)
        self.inputs_ = learn_inputs(rows, self.reads, self.vocabulary)
        return self.inputs_.read(rows), y

    def _reading(self, X: Any) -> list[Array]:
        check_is_fitted(self)
        if self.inputs_.kind == "ids" or not is_table(X):
            return self.inputs_.read(list(X))
        if self.inputs_.kind != "floats" or self.inputs_.width != 1:
            raise InputError(
                f"X is no list of sequences, which {type(self).__name__} was fitted to: {self.inputs_.kind}"
            )
        return [row[:, None] for row in validate_data(self, X, dtype=np.float32, reset=False)]

    def _config(self) -> ReaderConfig:
        cell = CellConfig.named if isinstance(self.cell, str) else CellConfig.of
        floats = self.inputs_.kind == "floats"
        return ReaderConfig(
            (cell(self.cell, self.hidden_size),) * self.layers,  # type: ignore[arg-type]
            vocabulary_size=None if floats else self.inputs_.width,
            features=self.inputs_.width if floats else None,
            embedding_size=self.embedding_size,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
        )

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _train(self, module: Classifier | Embedder, examples: Sequence[tuple[Array, Any]], seed: int) -> None:
        if not 0.0 <= self.validation_fraction < 1.0:
            raise InputError(f"validation_fraction is {self.validation_fraction}, expected at least 0 and below 1")
        if self.inputs_.kind == "floats" and any(len(x) for x, _ in examples):
            module.reader.standardise([x for x, _ in examples])
        training, held_out = list(examples), list(examples)[: self.batch]
        if self.validation_fraction:
            training, held_out = train_test_split(training, test_size=self.validation_fraction, random_state=seed)
        fit(
            module,
            training,
            held_out,
            collate=module.collate,
            epochs=self.epochs,
            batch=self.batch,
            learning_rate=self.learning_rate,
            patience=self.patience if self.validation_fraction else None,
            keep="best" if self.validation_fraction else "last",
            seed=seed,
            observer=Observer(),
        )
        self.module_ = module.cpu().eval()

    @torch.inference_mode()
    def _answers(self, X: Any) -> Array:
        """What the module says to each sequence, [sequences, outputs]."""
        sequences = self._reading(X)
        order = np.argsort([len(one) for one in sequences], kind="stable")
        parts = []
        for start in range(0, len(order), _ROWS):
            x, lengths = pad_sequences([sequences[place] for place in order[start : start + _ROWS]])
            parts.append(self.module_(x, lengths).numpy())
        answers = np.concatenate(parts)
        found = np.empty_like(answers)
        found[order] = answers
        return found
