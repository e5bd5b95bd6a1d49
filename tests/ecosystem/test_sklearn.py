"""scikit-learn's own checks of its estimators, its searches and pipelines, over sequences of any lengths.

CI has no scikit-learn: these run by ``scripts/ecosystem``, which installs it.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import rnncore
from rnncore import runtime
from rnncore.text import token_vocabulary
from tests.tolerances import fixed

pytest.importorskip("sklearn", reason="scikit-learn is not installed: scripts/ecosystem installs it")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from rnncore.sklearn import SequenceClassifier, SequenceEmbedder, SequenceEstimator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Leaky(rnncore.Cell):
    def __init__(self, input_size: int, size: int) -> None:
        super().__init__(input_size, output_size=size, state_sizes={"s": size})
        self.linear = nn.Linear(input_size, size)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x))

    def step(self, z: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = 0.9 * s + z
        return s, s


def waves(count: int, seed: int, width: int = 2) -> tuple[list[np.ndarray], np.ndarray]:
    """Rising and falling sequences [7 .. 19, width], and which they are."""
    random = np.random.default_rng(seed)
    labels = np.array(["falls", "rises"])[random.integers(0, 2, count)]
    rows = []
    for label in labels:
        time = np.linspace(0, 1, random.integers(7, 20))[:, None] * (1 if label == "rises" else -1)
        rows.append((time + 0.1 * random.standard_normal((len(time), width))).astype(np.float32))
    return rows, labels


@pytest.mark.parametrize("estimator", [SequenceClassifier(random_state=0), SequenceEmbedder(random_state=0)], ids=repr)
def test_every_check_of_scikit_learn_passes(estimator: SequenceEstimator) -> None:
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    found = {one["check_name"]: one for one in results}
    assert not {name: str(one["exception"]) for name, one in found.items() if one["status"] == "failed"}
    skipped = {name for name, one in found.items() if one["status"] not in ("passed", "failed")}
    assert skipped <= {"check_array_api_input", "check_estimators_unfitted_set_output"}, skipped
    assert len(found) > 35


def test_ragged_sequences_go_through_a_search_and_come_out_as_a_file(tmp_path: Path) -> None:
    rows, labels = waves(80, 0)
    search = GridSearchCV(
        SequenceClassifier(epochs=4, random_state=3), {"cell": ["gru", "lstm"], "hidden_size": [5, 8]}, cv=2
    ).fit(rows, labels)
    assert search.best_score_ > 0.9
    others, theirs = waves(30, 1)
    found = search.predict_proba(others)
    assert search.score(others, theirs) > 0.9
    np.testing.assert_allclose(found.sum(1), 1)
    assert list(found.argmax(1)) == [list(search.classes_).index(one) for one in search.predict(others)]
    report = search.best_estimator_.export(tmp_path / "waves.onnx")
    assert report.causal
    there = runtime.Classifier.load(tmp_path / "waves.onnx")
    assert list(there.labels) == list(search.classes_)
    np.testing.assert_allclose(
        np.asarray(there.probabilities_many(others)), found, rtol=fixed("float32"), atol=fixed("float32")
    )


def test_texts_ids_and_tokens_are_read(tmp_path: Path) -> None:
    texts = ["a good film", "a Good one", "good", "bad", "a bad film", "Bad one"] * 6
    labels = np.array([1, 1, 1, 0, 0, 0] * 6)
    model = SequenceClassifier(hidden_size=32, epochs=5, random_state=1).fit(np.array(texts, object), labels)
    assert list(model.predict(["what a good thing", "bad thing", ""])[:2]) == [1, 0]
    model.export(tmp_path / "m.onnx", quantize="int8")
    assert runtime.Classifier.load(tmp_path / "m.onnx").classify("GOOD") == "1"
    tokens = [text.split() for text in texts]
    by_tokens = SequenceClassifier(hidden_size=8, epochs=5, random_state=1, vocabulary=token_vocabulary(tokens))
    assert list(by_tokens.fit(tokens, labels).predict([["good"], ["bad", "unheard"]])) == [1, 0]
    random = np.random.default_rng(2)
    ids = [random.integers(0, 7, length) for length in random.integers(1, 9, 60)]
    wanted = np.array([int(row[-1] > 3) for row in ids])
    by_ids = SequenceClassifier(hidden_size=16, epochs=15, reads="ids", random_state=1).fit(ids, wanted)
    assert by_ids.score(ids, wanted) > 0.9
    with pytest.raises(ValueError, match=r"X\[1\] holds ids from 9 to 9, expected 0 to 6"):
        by_ids.predict([[1, 2], [9]])


def test_vectors_go_on_through_a_pipeline() -> None:
    rows, labels = waves(80, 4)
    pipeline = Pipeline(
        [("embed", SequenceEmbedder(4, epochs=4, random_state=0)), ("near", KNeighborsClassifier(3))]
    ).fit(rows, labels)
    others, theirs = waves(40, 5)
    assert pipeline.score(others, theirs) > 0.9
    np.testing.assert_allclose(np.linalg.norm(pipeline["embed"].transform(others), axis=1), 1, rtol=fixed("float32"))
    cut = FunctionTransformer(lambda sequences: [one[:6] for one in sequences])
    scores = cross_val_score(make_pipeline(cut, SequenceClassifier(epochs=4, random_state=0)), rows, labels, cv=2)
    assert scores.min() > 0.9
    table = np.stack([one[:7, 0] for one in rows])  # what scikit-learn's own transformers give
    assert (
        make_pipeline(StandardScaler(), SequenceClassifier(epochs=6, random_state=0))
        .fit(table, labels)
        .score(table, labels)
        > 0.9
    )


def test_own_cells_copies_and_pickles() -> None:
    rows, labels = waves(60, 6)
    model = SequenceClassifier(Leaky, 6, epochs=3, validation_fraction=0.2, patience=2, random_state=7)
    again = clone(model).fit(rows, labels)
    copy = pickle.loads(pickle.dumps(again))
    alone = model.fit(rows, labels)
    np.testing.assert_array_equal(copy.predict_proba(rows), alone.predict_proba(rows))
    one = again.predict_proba(rows[:1])
    np.testing.assert_allclose(one, again.predict_proba(rows)[:1], rtol=fixed("float32"), atol=fixed("float32"))


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([np.zeros((3, 2)), np.zeros((4, 3))], r"X\[1\] is \[4, 3\], expected \[time, 2\]"),
        ([np.zeros((3, 2)), np.full((2, 2), np.nan)], r"X\[1\] contains NaN"),
        ([np.zeros((3, 2)), "text"], r"X\[0\] is a ndarray, expected a text"),
        ([np.zeros((3, 2)), [["a", "b"]]], r"X\[1\] holds no numbers"),
        ([np.zeros((3, 2))], "inconsistent numbers of samples"),
        ([], "array=\\[\\]"),
    ],
)
def test_sequences_that_do_not_fit_are_named(rows: list[Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SequenceClassifier(epochs=1).fit(rows, [0, 1])


def test_a_table_and_sequences_are_not_mixed_up() -> None:
    rows, labels = waves(20, 8, width=3)
    model = SequenceClassifier(epochs=1).fit(rows, labels)
    with pytest.raises(ValueError, match="no list of sequences"):
        model.predict(np.zeros((4, 7)))
    padded = np.stack([one[:7] for one in rows])
    np.testing.assert_array_equal(model.predict(padded), model.predict(list(padded)))
    assert not hasattr(model.fit(rows, labels), "n_features_in_")
    with pytest.raises(ValueError, match="reads is 'bytes'"):
        SequenceClassifier(reads="bytes").fit(rows, labels)
    with pytest.raises(ValueError, match="unknown cell 'gruu'"):
        SequenceClassifier("gruu").fit(rows, labels)
