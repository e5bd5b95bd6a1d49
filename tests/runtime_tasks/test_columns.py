"""Columns of texts and tensors of other libraries give what lists and arrays give, or are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rnncore import CellConfig, Classifier, ReaderConfig, runtime
from rnncore.export import export_model
from rnncore.runtime import InputError
from rnncore.text import character_vocabulary
from tests.task_models import model_file
from tests.tolerances import bound

TEXTS = ["a good film", "bad"]


class ArrowText:
    """As a scalar of Arrow: a text in a shell."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def as_py(self) -> Any:
        return self.value


class TextColumn:
    """As a column of pandas or polars: it says of what kind it is, and gives a list."""

    dtype = "string"

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def to_list(self) -> list[Any]:
        return list(self.values)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> runtime.Classifier:
    letters = character_vocabulary(["abcdefghijklmnopqrstuvwxyz "])
    torch.manual_seed(3)
    model = Classifier(ReaderConfig((CellConfig.named("gru", 8),), len(letters)), ["x", "y"])
    path = tmp_path_factory.mktemp("columns") / "classifier.onnx"
    export_model(model, path, vocabulary=letters)
    return runtime.Classifier.load(path)


@pytest.mark.parametrize(
    "column",
    [
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        TextColumn(TEXTS),
        [np.str_(text) for text in TEXTS],
        [ArrowText(text) for text in TEXTS],
    ],
)
def test_a_column_gives_what_the_list_gives(classifier: runtime.Classifier, column: Any) -> None:
    wanted = np.asarray(classifier.probabilities(TEXTS))
    assert wanted.shape == (2, 2)
    assert np.array_equal(np.asarray(classifier.probabilities(column)), wanted)
    for text, row in zip(TEXTS, wanted, strict=True):
        np.testing.assert_allclose(
            list(classifier.probabilities(text).values()), row, atol=bound("float32", "onnx", depth=2)
        )


@pytest.mark.parametrize("gap", [None, float("nan")])
def test_a_missing_text_is_named_by_its_place(classifier: runtime.Classifier, gap: Any) -> None:
    for column in (["a", gap], np.array(["a", gap], dtype=object), TextColumn(["a", gap])):
        with pytest.raises(InputError, match="text 1 is missing"):
            classifier.probabilities(column)
    with pytest.raises(InputError, match="text 1 is a bytes"):
        classifier.probabilities(["a", b"b"])


def test_tensors_of_pytorch_are_arrays() -> None:
    embedder = runtime.Embedder.load(model_file("embedder, statistics"))
    x = torch.randn(4, 5)
    wanted = embedder.embed(x.numpy())
    for same in (x.clone().requires_grad_(), x.t().contiguous().t(), x.tolist(), x.numpy().astype(object)):
        np.testing.assert_allclose(embedder.embed(same), wanted, atol=bound("float32", "onnx", depth=2))
    half = x.bfloat16()
    np.testing.assert_allclose(
        embedder.embed(half), embedder.embed(half.float().numpy()), atol=bound("float32", "onnx", depth=2)
    )
    with pytest.raises(InputError, match="masked array"):
        embedder.embed(np.ma.masked_array(x.numpy()))
