"""Models over columns give what the models give, whatever holds the columns; nothing here needs Ray."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.ray import ColumnMapper, Embed, Score
from rnncore.runtime import InputError, TamperedModelError
from rnncore.runtime.errors import ModelFileError
from tests import language_models
from tests.task_models import model_file, sequences
from tests.tolerances import fixed

LENGTHS = [4, 1, 7]
EMBEDDER = "embedder, statistics"


def objects(rows: list[Any]) -> np.ndarray:
    column = np.empty(len(rows), object)
    column[:] = rows
    return column


def test_vectors_of_a_column_are_those_of_the_embedder() -> None:
    rows = sequences(EMBEDDER, LENGTHS, 1)
    file = model_file(EMBEDDER)
    found = Embed(file, "x")({"x": objects(rows), "id": np.arange(3)})
    expected = runtime.Embedder.load(file).embed_many(rows)
    np.testing.assert_array_equal(found["embedding"], expected)
    np.testing.assert_array_equal(found["id"], np.arange(3))


def test_scores_are_those_of_the_language_model_and_their_numbers_of_tokens() -> None:
    texts = ["abc", "de cab", ""]
    model = runtime.LanguageModel.load(language_models.model_file())
    found = Score(language_models.model_file(), "text")({"text": np.array(texts)})
    expected = [model.score(text, eos=True) for text in texts]
    np.testing.assert_allclose(found["log_prob"], expected, rtol=fixed("float32"), atol=fixed("float32"))
    assert list(found["log_prob_tokens"]) == [len(text) + 1 for text in texts]


def test_a_row_that_is_refused_is_named_or_becomes_null() -> None:
    rows: list[Any] = sequences(EMBEDDER, LENGTHS, 1)
    rows[1:2] = [np.zeros((3, 99), np.float32), None]
    batch = {"x": objects(rows)}
    with pytest.raises(InputError, match="column 'x': row 2 is missing"):
        Embed(model_file(EMBEDDER), "x")(batch)
    found = Embed(model_file(EMBEDDER), "x", on_error="null")(batch)
    assert [value is None for value in found["embedding"]] == [False, True, True, False]
    assert [error is None for error in found["embedding_error"]] == [True, False, False, True]
    assert "99 features" in found["embedding_error"][1]
    assert "missing" in found["embedding_error"][2]
    alone = Embed(model_file(EMBEDDER), "x")({"x": objects([rows[0]])})
    np.testing.assert_allclose(
        found["embedding"][0], alone["embedding"][0], rtol=fixed("float32"), atol=fixed("float32")
    )


def test_what_does_not_fit_is_said() -> None:
    embed = Embed(model_file(EMBEDDER), "x")
    with pytest.raises(InputError, match=r"there is no column 'x'; the batch has 'y', 'z'"):
        embed({"y": np.zeros(2), "z": np.zeros(2)})
    with pytest.raises(InputError, match="the batch is a list, expected an Arrow table"):
        embed([1, 2])
    with pytest.raises(InputError, match="on_error is 'skip', expected 'raise' or 'null'"):
        Embed(model_file(EMBEDDER), "x", on_error="skip")  # type: ignore[arg-type]
    with pytest.raises(ModelFileError):
        Embed(language_models.model_file(), "x")


def test_a_mapper_travels_and_meets_the_file_that_it_was_made_for(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model_file(EMBEDDER))
    mapper: ColumnMapper = pickle.loads(pickle.dumps(Embed(path, "x")))
    batch = {"x": objects(sequences(EMBEDDER, LENGTHS, 1))}
    np.testing.assert_array_equal(mapper(batch)["embedding"], Embed(model_file(EMBEDDER), "x")(batch)["embedding"])
    other = Embed(path, "x", into="other", arena=False)  # options of their own: not opened yet
    path.write_bytes(language_models.model_file())
    with pytest.raises(TamperedModelError, match="the file has changed since the mapper was made"):
        other(batch)


LIBRARIES = {"arrow": ("pyarrow", "table"), "pandas": ("pandas", "DataFrame"), "polars": ("polars", "DataFrame")}


@pytest.mark.parametrize("kind", LIBRARIES)
def test_tables_give_what_dicts_give(kind: str) -> None:
    name, maker = LIBRARIES[kind]
    table = getattr(pytest.importorskip(name, reason=f"{name} is not installed: scripts/ecosystem installs it"), maker)
    rows = sequences(EMBEDDER, LENGTHS, 1)
    batch = table({"x": [row.tolist() for row in rows], "id": [5, 6, 7]})
    found = Embed(model_file(EMBEDDER), "x")(batch)
    expected = Embed(model_file(EMBEDDER), "x")({"x": objects(rows)})["embedding"]
    assert type(found) is type(batch)
    column = [np.asarray(row) for row in (found["embedding"].to_pylist() if kind == "arrow" else found["embedding"])]
    np.testing.assert_array_equal(np.array(column, np.float32), expected)
    scored = Score(language_models.model_file(), "t")(table({"t": ["abc", "de"]}))
    numbers = scored["log_prob"].to_pylist() if kind == "arrow" else list(scored["log_prob"])
    assert numbers == list(Score(language_models.model_file(), "t")({"t": np.array(["abc", "de"])})["log_prob"])
