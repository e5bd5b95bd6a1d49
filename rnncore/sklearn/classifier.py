"""``SequenceClassifier``: ``rnncore.Classifier`` with scikit-learn's methods."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from rnncore.cells import Cell
from rnncore.models import Classifier
from rnncore.runtime.arrays import Array
from rnncore.runtime.text.vocabulary import Vocabulary
from rnncore.sklearn.estimator import SequenceEstimator


class SequenceClassifier(ClassifierMixin, SequenceEstimator):
    """A label for each sequence, by recurrent layers, pooling over time and a linear head.

    ::

        model = SequenceClassifier("lstm", 32, epochs=10).fit(sequences, labels)
        model.predict_proba(others)
        model.export("labels.onnx")     # for rnncore.runtime.Classifier

    ``X`` is

    * a list of arrays [time, features] or [time], of any lengths, or an array [sequences, time, features],
    * a table [sequences, time] as scikit-learn knows it, a univariate series a row: after ``fit`` to one, arrays and frames have
      to have as many columns; lists may have any length,
    * a list of texts, or of lists of tokens; a column of such,
    * with ``reads="ids"`` a list of integer arrays [time]: token ids.

    Args:
        cell: a name of ``rnncore.models.CELLS``, or a class of cells of your own.
        hidden_size: features of its state.
        layers: how many layers.
        bidirectional: read in both directions; the exported file does not stream then.
        pooling: as for :class:`rnncore.models.Classifier`.
        embedding_size: features of a token.
        dropout: as for :class:`rnncore.models.ReaderConfig`.
        reads: "auto", or "ids" where integers are token ids and not measured values.
        vocabulary: of texts: "words", capitals read as small letters; "characters", which refuses those that were not in
            ``fit``; or a Vocabulary of your own.
        epochs, batch, learning_rate: as for :func:`rnncore.training.fit`.
        validation_fraction: this part of the sequences chooses the best epoch; 0: the last one is taken.
        patience: stop when the loss of that part has not fallen for so many epochs.
        random_state: of the weights, the order of sequences, and dropout.

    Attributes:
        classes_: the labels, sorted.
        module_: the trained :class:`rnncore.models.Classifier`; its labels are ``classes_`` as strings.
        vocabulary_: the tokens, if texts or tokens were read.
        n_features_in_, feature_names_in_: after a fit to a table only.

    Raises:
        InputError: (a ValueError) a sequence does not fit, by its place.
    """

    def __init__(
        self,
        cell: str | type[Cell] = "gru",
        hidden_size: int = 32,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "last",
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
        self.cell = cell
        self.hidden_size = hidden_size
        self.layers = layers
        self.bidirectional = bidirectional
        self.pooling = pooling
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

    def fit(self, X: Any, y: Any) -> Self:
        """Train on sequences and their labels, [sequences]; returns the estimator."""
        sequences, y = self._fitting(X, y)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class only, {self.classes_[0]!r}: a classifier needs at least two")
        labels = [str(one) for one in self.classes_.tolist()]
        seed = self._seed()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = Classifier(self._config(), labels, pooling=self.pooling)
        self._train(module, list(zip(sequences, [labels[i] for i in targets], strict=True)), seed)
        return self

    def predict_proba(self, X: Any) -> Array:
        """Probabilities, float64 [sequences, classes], in the order of ``classes_``."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Any) -> Array:
        """Natural-log probabilities, float64 [sequences, classes]."""
        log_probs = self._answers(X).astype(np.float64)
        return log_probs - np.logaddexp.reduce(log_probs, 1, keepdims=True)

    def predict(self, X: Any) -> Array:
        """The likeliest class of each sequence, [sequences]."""
        best = self.predict_log_proba(X).argmax(1)
        found: Array = self.classes_[best]
        return found
