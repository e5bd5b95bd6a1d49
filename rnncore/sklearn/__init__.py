"""Classifier and Embedder as estimators of scikit-learn: pipelines, grid searches and cross-validation over sequences.

Raises MissingExtraError when imported without PyTorch or scikit-learn: ``pip install 'rnncore[train,sklearn]'``.
"""

from __future__ import annotations

from rnncore.runtime.errors import MissingExtraError

_EXTRAS = {"torch": "train", "sklearn": "sklearn"}

try:
    from rnncore.sklearn.classifier import SequenceClassifier
    from rnncore.sklearn.embedder import SequenceEmbedder
    from rnncore.sklearn.estimator import SequenceEstimator
except ImportError as error:  # also scikit-learn before 1.6, which lacks a name
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        raise
    wanted = "scikit-learn 1.6 or newer" if package == "sklearn" else package
    raise MissingExtraError(wanted, _EXTRAS[package], "rnncore.sklearn") from None

__all__ = ["SequenceClassifier", "SequenceEmbedder", "SequenceEstimator"]
