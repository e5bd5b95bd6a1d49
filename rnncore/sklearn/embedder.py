"""``SequenceEmbedder``: ``rnncore.Embedder`` with scikit-learn's methods."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets

from rnncore.cells import Cell
from rnncore.models import Embedder
from rnncore.runtime.arrays import Array
from rnncore.runtime.text.vocabulary import Vocabulary
from rnncore.sklearn.estimator import SequenceEstimator

LOSSES = ("contrastive", "triplet")


class SequenceEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, SequenceEstimator):
    """A vector of length 1 for each sequence, near to those of the same label: a transformer that is fitted with labels.

    ::

        Pipeline([("embed", SequenceEmbedder(size=16)), ("near", KNeighborsClassifier())]).fit(sequences, labels)

    Args:
        size: numbers of a vector.
        pooling, loss: as for :class:`rnncore.models.Embedder`; ``loss`` is "contrastive" or "triplet".
        others: as for :class:`SequenceClassifier`, and so is ``X``.

    Attributes:
        module_: the trained :class:`rnncore.models.Embedder`.
        vocabulary_, n_features_in_, feature_names_in_: as for :class:`SequenceClassifier`.

    Raises:
        InputError: (a ValueError) a sequence does not fit, by its place.
    """

    def __init__(
        self,
        size: int = 16,
        cell: str | type[Cell] = "gru",
        hidden_size: int = 32,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "mean",
        loss: str = "contrastive",
        embedding_size: int = 32,
        dropout: float = 0.0,
        reads: str = "auto",
        vocabulary: str | Vocabulary = "words",
        epochs: int = 20,
        batch: int = 32,
        learning_rate: float = 0.01,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.size = size
        self.cell = cell
        self.hidden_size = hidden_size
        self.layers = layers
        self.bidirectional = bidirectional
        self.pooling = pooling
        self.loss = loss
        self.embedding_size = embedding_size
        self.dropout = dropout
        self.reads = reads
        self.vocabulary = vocabulary
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Train on sequences and their labels, [sequences]; returns the estimator."""
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}, expected {' or '.join(map(repr, LOSSES))}")
        sequences, y = self._fitting(X, y)
        check_classification_targets(y)
        labels, targets, counts = np.unique(y, return_inverse=True, return_counts=True)
        if len(labels) < 2 or counts.max() < 2:
            raise ValueError(
                f"y has {len(y)} samples of {len(labels)} class(es), expected at least two classes, one of two samples"
            )
        seed = self._seed()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = Embedder(self._config(), self.size, pooling=self.pooling, loss=self.loss)
        self._train(module, list(zip(sequences, targets.tolist(), strict=True)), seed)
        return self

    def transform(self, X: Any) -> Array:
        """Vectors of length 1, float32 [sequences, size]."""
        return self._answers(X)

    @property
    def _n_features_out(self) -> int:
        return self.size
