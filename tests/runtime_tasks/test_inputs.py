"""What the task classes read, and what they say to anything else."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rnncore import CellConfig, ReaderConfig, Tagger, runtime
from rnncore.export import export, export_model
from rnncore.runtime import InputError, ModelFileError, NotStreamableError, UnknownTokenError
from tests.task_models import DEPTH, characters, model_file, sequences, torch_model
from tests.tolerances import bound, fixed


@pytest.fixture(scope="module")
def tagger() -> runtime.Tagger:
    return runtime.Tagger.load(model_file("tagger"))


def test_a_text_its_tokens_and_their_ids_are_the_same(tagger: runtime.Tagger) -> None:
    tokens = ["12", "MAIN", "st", "Nowhere", "99"]  # of which one is unknown, and one is as good as 12
    ids = tagger.vocabulary.encode(" ".join(tokens))
    assert tagger.tag(" ".join(tokens)) == tagger.tag(tokens) == tagger.tag(tuple(tokens)) == tagger.tag(ids)
    assert tagger.tag(ids.tolist()) == tagger.tag(ids)
    assert tagger.tag_many([tokens, " ".join(tokens), ids, ["st"]]) == [tagger.tag(ids)] * 3 + [tagger.tag("st")]
    assert ids[0] == ids[4] and ids[3] == tagger.vocabulary.unk_id
    spans = tagger.spans(tokens)
    assert spans == runtime.spans_of(tagger.tag(tokens))


def test_nothing_has_no_labels(tagger: runtime.Tagger) -> None:
    assert tagger.tag("") == tagger.tag([]) == []
    assert tagger.tag_many(["", "po box"])[0] == []
    assert tagger.tag_many([]) == []
    embedder = runtime.Embedder.load(model_file("embedder, statistics"))
    assert embedder.embed_many([]).shape == (0, embedder.size) == (0, 11)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (["main st"], "item 1: token 0 is 'main st'"),
        (["po", ""], "item 1: token 1 is ''"),
        ([5, 99], r"holds the id 99 at \[1\]"),
        ([0.5], "expects integers"),
        (None, "text 1 is missing \\(None\\)"),
    ],
)
def test_what_is_no_input_is_named(tagger: runtime.Tagger, one: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tagger.tag_many(["po box", one])


def test_one_text_is_not_several(tagger: runtime.Tagger) -> None:
    with pytest.raises(InputError, match="put it in a list"):
        tagger.tag_many("po box")
    with pytest.raises(InputError, match="lengths go with a padded array only"):
        tagger.tag_many([[1, 2]], [2])


def test_a_model_of_floats_reads_no_text() -> None:
    with pytest.raises(InputError, match=r"no tokenizer, so it reads no text: hand in floats \['time', 5\]"):
        runtime.Rater.load(model_file("rater, max")).rate("a text")


def test_a_file_of_another_task_is_refused() -> None:
    with pytest.raises(ModelFileError, match="for the task 'tagger', expected 'classifier'"):
        runtime.Classifier.load(model_file("tagger"))


def test_files_that_are_not_what_they_say_are_refused(tmp_path: Path) -> None:
    config = ReaderConfig((CellConfig.named("gru", 3),), features=2)
    model, path = Tagger(config, "abcd").eval(), tmp_path / "model.onnx"

    def written(metadata: dict[str, str]) -> Path:
        export(model, path, model.example_inputs(), verify=False, metadata=metadata)
        return path

    with pytest.raises(ModelFileError, match="of no task, expected 'tagger'"):
        runtime.Tagger.load(written({}))
    with pytest.raises(ModelFileError, match="the output has 4 features, expected 2"):
        runtime.Tagger.load(written({"rnncore.task": "tagger", "rnncore.labels": json.dumps(["a", "b"])}))


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the vocabulary has 9 tokens, the model reads floats"):
        export_model(torch_model("rater, max"), tmp_path / "m.onnx", vocabulary=characters())
    with pytest.raises(InputError, match="the vocabulary has 9 tokens, the model reads ids of 10 tokens"):
        export_model(torch_model("tagger"), tmp_path / "m.onnx", vocabulary=characters())
    with pytest.raises(InputError, match=r"model is a Linear, expected one of rnncore\.models"):
        export_model(torch.nn.Linear(2, 3), tmp_path / "m.onnx")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_streams_only_where_the_model_does() -> None:
    with pytest.raises(NotStreamableError, match="reads backward in time"):
        runtime.Classifier.load(model_file("classifier, attention")).stream()
    with pytest.raises(NotStreamableError, match="looks along the time axis"):
        runtime.Rater.load(model_file("rater, max")).stream()


def test_generators_say_what_conditions_there_are() -> None:
    generator = runtime.Generator.load(model_file("generator"))
    with pytest.raises(UnknownTokenError, match="condition is 'polka', expected one of: jig, reel, air"):
        generator.generate("polka")
    with pytest.raises(UnknownTokenError, match="condition is None"):
        generator.generate()
    with pytest.raises(InputError, match="max_tokens is -1"):
        generator.ids("jig", -1)
    with pytest.raises(InputError, match="temperature is -1"):
        generator.ids("jig", temperature=-1)
    with pytest.raises(InputError, match="2 sequences and 1 conditions"):
        generator.bits(["a", "b"], ["jig"])
    with pytest.raises(InputError, match="this model has none"):
        runtime.Generator.load(model_file("generator from nothing")).generate("jig")


def test_vectors_are_compared() -> None:
    vectors = np.array([[3.0, 4.0], [-3.0, -4.0], [0.0, 0.0], [6.0, 8.0]])
    np.testing.assert_allclose(runtime.cosines(vectors[0], vectors), [1, -1, 0, 1], atol=fixed("float64 sum"))
    assert runtime.cosines(vectors, vectors).shape == (4, 4)
    embedder = runtime.Embedder.load(model_file("embedder, statistics"))
    x, other = np.ones((3, 5)), np.eye(5)
    assert embedder.similarity(x, other) == pytest.approx(
        float(embedder.embed(x) @ embedder.embed(other)), abs=fixed("float32 same steps")
    )
    assert embedder.similarity(x, x) == pytest.approx(1.0)


def test_copies_open_the_file_again(tagger: runtime.Tagger) -> None:
    again = pickle.loads(pickle.dumps(tagger))
    assert type(again) is runtime.Tagger
    assert again.tag("12 main st") == tagger.tag("12 main st")


def test_neither_torch_nor_tokenizers_are_needed_for_ids(tmp_path: Path, tagger: runtime.Tagger) -> None:
    path = tmp_path / "tagger.onnx"
    path.write_bytes(model_file("tagger"))
    program = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnx_ir', 'tokenizers'): sys.modules[name] = None\n"
        "from rnncore.runtime import Tagger\n"
        f"print(Tagger.load({str(path)!r}).tag([1, 5, 2, 9]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == str(tagger.tag([1, 5, 2, 9])), done.stderr


def test_files_are_embedded_one_window_at_a_time(tmp_path: Path) -> None:
    embedder = runtime.Embedder.load(model_file("embedder, statistics"))
    rows = sequences("embedder, statistics", [3, 9, 1, 5, 2, 7, 4], 1)
    paths = [tmp_path / f"{i}.npy" for i in range(len(rows))]
    for path, row in zip(paths, rows, strict=True):
        np.save(path, row)
    read: list[Path] = []
    told: list[tuple[int, int]] = []

    def load(path: Path) -> np.ndarray:
        read.append(path)
        return np.asarray(np.load(path))

    vectors = embedder.embed_iter(iter(paths), read=load, window=3, progress=lambda *done: told.append(done))
    first = next(vectors)
    assert len(read) == 3
    found = [first, *vectors]
    assert told == [(3, 13), (6, 27), (7, 31)]
    np.testing.assert_allclose(found, embedder.embed_many(rows), atol=bound("float32", "onnx", depth=DEPTH))
    padded, sizes = np.zeros((len(rows), 9, rows[0].shape[1]), np.float32), [len(row) for row in rows]
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    for many, lengths in ((rows, None), (padded, sizes)):
        told.clear()
        shown = embedder.embed_many(many, lengths, progress=lambda *done: told.append(done))
        assert told == [(7, 31)]
        np.testing.assert_allclose(shown, found, atol=bound("float32", "onnx", depth=DEPTH))
    with pytest.raises(InputError, match=r"lengths\[0\] is 10"):
        embedder.embed_many(padded, [10, *sizes[1:]], progress=print)
    with pytest.raises(FileNotFoundError) as caught:
        list(embedder.embed_iter([paths[0], tmp_path / "missing.npy"], read=np.load))
    assert "while reading input 1" in caught.value.__notes__[0]
    with pytest.raises(InputError, match="sequence 1"):
        list(embedder.embed_iter([rows[0], rows[1][:, :2]]))
