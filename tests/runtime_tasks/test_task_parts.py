"""Classes of tasks on files made by hand, number by number, and what they say of files and inputs that are not theirs."""

from __future__ import annotations

import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime import Endpointing, InputError, ModelFileError, Signature, TensorSpec
from rnncore.runtime.tasks.claims import best_tagging_problem, bounds_problem, probe, unit_vector_problem
from rnncore.runtime.tasks.ctc import beam_search, collapse
from rnncore.runtime.text.batch_sampling import Uniforms
from tests.runtime.files import causal_file
from tests.runtime_tasks.test_claims import BY_STEP, CLASSES, FEATURES, LABELS, ONE, RIGHT, WEIGHTS, WHOLE, file
from tests.tolerances import fixed

X = np.random.default_rng(3).standard_normal((3, 4, FEATURES)).astype(np.float32)
NEAR = fixed("float32 two hosts")
ROWS = [X[0], X[1, :2], X[2, :1]]


@cache
def opened(name: str) -> Any:
    return runtime.open(RIGHT[name]())


def log_softmax(x: np.ndarray) -> np.ndarray:
    scores = x.astype(np.float64) @ WEIGHTS
    return np.asarray(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True))


# ----------------------------------------------------------------------------------------------------- classes of tasks
def test_a_tagger_takes_the_largest_of_each_step() -> None:
    tagger = opened("tagger")
    wanted = [[LABELS[i] for i in log_softmax(row).argmax(-1)] for row in ROWS]
    assert len({label for row in wanted for label in row}) > 1
    assert [tagger.tag(row) for row in ROWS] == tagger.tag_many(ROWS) == tagger.tag_many(iter(ROWS)) == wanted
    padded = np.zeros((3, 4, FEATURES), np.float32)
    for i, row in enumerate(ROWS):
        padded[i, : len(row)] = row
    assert tagger.tag_many(padded, [4, 2, 1]) == wanted
    assert [len(row) for row in tagger.tag_many(padded)] == [4, 4, 4]
    np.testing.assert_allclose(tagger.log_probs(X[0]), log_softmax(X[0]), atol=NEAR)
    np.testing.assert_array_equal(tagger.scores(X[0]), tagger.log_probs(X[0]))
    assert tagger.spans(X[0]) == runtime.spans_of(wanted[0])
    with pytest.raises(InputError) as caught:
        opened("tagger, crf").log_probs(X[0])
    assert str(caught.value) == (
        "this file chooses the tags of a sequence together: it gives scores(), no log_probs() of each"
    )
    assert opened("tagger, crf").scores(X[0]).max(-1).tolist() == [0.0] * 4


def test_a_classifier_names_the_likeliest_of_all() -> None:
    classifier = opened("classifier")
    scores = X.astype(np.float64).mean(1) @ WEIGHTS
    wanted = np.exp(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True))
    assert classifier.classify_many(X) == [LABELS[i] for i in wanted.argmax(-1)]
    assert classifier.classify(X[1]) == LABELS[int(wanted[1].argmax())]
    found = classifier.probabilities_many(list(X))
    np.testing.assert_allclose(np.asarray(found), wanted, atol=NEAR)
    assert list(found[0]) == LABELS and found[0] == classifier.probabilities(X[0])
    assert np.asarray(found[0]).dtype == np.float64 and np.array(found[0], np.float32).dtype == np.float32


def test_a_rater_gives_one_number() -> None:
    rater = opened("rater")
    wanted = 1 / (1 + np.exp(-(X.astype(np.float64).mean(1) @ WEIGHTS).max(-1)))
    assert rater.rate_many(X) == pytest.approx(wanted.tolist(), abs=NEAR)
    assert rater.rate(X[2]) == pytest.approx(wanted[2], abs=NEAR) and type(rater.rate(X[2])) is float
    for bounds in ("[1, 0]", "[0]", "7", "x", '["a", 1]', "[1, 1]"):
        with pytest.raises(ModelFileError) as caught:
            runtime.open(file("rater", ONE, "ReduceMean ReduceMax Sigmoid", bounds=bounds))
        assert str(caught.value) == (
            f"rnncore.bounds in the file is {bounds!r}, expected two numbers, the lower one first"
        )


def test_an_embedder_gives_vectors_of_length_one() -> None:
    embedder = opened("embedder")
    wanted = X.astype(np.float64).mean(1) @ WEIGHTS
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert embedder.size == CLASSES
    np.testing.assert_allclose(embedder.embed_many(X), wanted, atol=NEAR)
    np.testing.assert_allclose(embedder.embed(X[1]), wanted[1], atol=NEAR)
    assert embedder.similarity(X[0], X[1]) == pytest.approx(wanted[0] @ wanted[1], abs=NEAR)
    told: list[tuple[int, int]] = []
    for lengths in (None, [4, 4, 4]):
        shown = embedder.embed_many(X, lengths, progress=lambda *now: told.append(now))
        np.testing.assert_allclose(shown, wanted, atol=NEAR)
    assert told == [(3, 12), (3, 12)]
    assert embedder.embed_many([], progress=print).shape == (0, CLASSES)
    assert embedder.embed_many([]).dtype == np.float32
    with pytest.raises(InputError, match=r"^the input is \[4\], expected \[inputs, time, ...\]$"):
        embedder.embed_many(np.ones(4), progress=print)
    with pytest.raises(InputError) as caught:
        embedder.embed_many(ROWS, [1, 2, 3], progress=print)
    assert str(caught.value) == "lengths go with a padded array only: each item of a list brings its own length"
    with pytest.raises(InputError, match=r"^got one text where several inputs are expected: put it in a list$"):
        embedder.embed_many("text", progress=print)

    def fail(one: Any) -> Any:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone") as gone:
        list(embedder.embed_iter([5], read=fail))
    assert gone.value.__notes__ == ["while reading input 0: 5"]


def test_a_recogniser_joins_what_the_frames_say() -> None:
    recogniser = opened("recogniser")
    assert recogniser.labels == ("b", "c")
    paths = [log_softmax(row).argmax(-1).tolist() for row in ROWS]
    wanted = ["".join(recogniser.labels[i - 1] for i in collapse(path)) for path in paths]
    assert [recogniser.recognise(row) for row in ROWS] == recogniser.recognise_many(ROWS) == wanted
    np.testing.assert_allclose(recogniser.log_probs(X[0]), log_softmax(X[0]), atol=NEAR)
    by_hand = beam_search(log_softmax(X[0]), 16)
    found = recogniser.hypotheses(X[0])
    assert [one.labels for one in found] == [tuple(recogniser.labels[i - 1] for i in labels) for labels, _ in by_hand]
    assert [one.log_prob for one in found] == pytest.approx([log_prob for _, log_prob in by_hand], abs=NEAR)
    timed = recogniser.timed(X[0], beams=16)
    assert timed.text == "".join(found[0].labels) == recogniser.recognise(X[0], beams=16)
    assert recogniser.recognise_many([X[0]], beams=16) == [timed.text]


def test_a_generator_scores_and_refuses() -> None:
    generator = opened("generator")
    assert generator.eos_id == 0 and generator.labels == ()
    for eos in ("x", "null", "[1]", '"a"'):
        with pytest.raises(ModelFileError) as caught:
            runtime.open(file("generator", BY_STEP, "LogSoftmax", eos=eos))
        assert str(caught.value) == "rnncore.eos in the file is no token id: export the model again"
    for ask, says in (
        (
            lambda: generator.generate_many("jig"),
            "conditions is the text 'jig', expected a list with one condition for each text",
        ),
        (
            lambda: generator.generate_many([None, None], prefixes=["a"]),
            "1 prefixes for 2 conditions: hand in one for each",
        ),
        (lambda: generator.generate_many([None], -1), "max_tokens is -1, expected an integer of at least 0"),
        (lambda: generator.ids("jig"), "condition is 'jig', but this model has none: leave it out"),
        (
            lambda: generator.ids(prefix=[[1]]),
            "the sequence is int64 [1, 1], expected a text, tokens or integers [time]",
        ),
        (lambda: generator.bits([], []), "0 sequences and 0 conditions, expected as many, at least one"),
    ):
        with pytest.raises(InputError) as refused:
            ask()
        assert str(refused.value) == says


STREAMS = Signature(
    (TensorSpec("x", "float32", ("batch", "time", FEATURES)),), (TensorSpec("y", "float32", BY_STEP),), causal=True
).to_json()
LONG = np.concatenate([X[0], X[0, -1:], X[1], X[2]])


def test_a_stream_answers_in_the_words_of_its_task() -> None:
    tagger = runtime.open(file("tagger", BY_STEP, "LogSoftmax", signature=STREAMS, labels=json.dumps(LABELS)))
    whole = tagger.tag(LONG)
    with tagger.stream() as stream:
        assert stream.push(LONG[:3]) == whole[:3]
        twin = stream.fork()
        assert stream.push(LONG[3:]) == twin.push(LONG[3:]) == whole[3:]
        with pytest.raises(InputError):
            stream.push(LONG[:, :2])
        stream.reset()
        assert stream.push(LONG[:1]) == whole[:1] and stream.push(LONG[:0]) == []
        twin.close()
        with pytest.raises(runtime.StateError, match="closed"):
            twin.push(LONG)
    with pytest.raises(runtime.StateError, match="closed"):
        stream.push(LONG)


def test_text_of_frames_as_they_come_is_that_of_the_whole() -> None:
    task = runtime.open(file("recogniser", BY_STEP, "LogSoftmax", signature=STREAMS, labels=json.dumps(LABELS[1:])))
    whole = task.recognise(LONG)
    for cut in range(len(LONG) + 1):
        with task.stream() as stream:
            first = stream.push(LONG[:cut])
            twin = stream.fork()
            assert first + stream.push(LONG[cut:]) == first + twin.push(LONG[cut:]) == whole, cut
    with task.stream() as stream:
        first = stream.push(LONG[:5])
        twin = stream.fork()
        assert first + twin.push(LONG[5:]) == first + stream.push(LONG[5:]) == whole
        stream.reset()
        assert stream.push(LONG[:5]) == first
        twin.close()
        with pytest.raises(runtime.StateError, match="closed"):
            twin.push(LONG)
    timed = task.timed(LONG, beams=9)
    with task.beam_stream(9, Endpointing(longest=4)) as beams:
        for cut in (slice(0, 3), slice(3, 3), slice(3, None)):
            text = beams.push(LONG[cut])
            assert beams.ended is (cut.stop is None)
            with pytest.raises(InputError):
                beams.push(LONG[:, :2])
        found = beams.finish()
        assert text == found.text == timed.text and not beams.ended and beams.finish().text == ""
        assert found.log_prob == pytest.approx(timed.log_prob, abs=NEAR)
        assert [one[:3] for one in found.labels] == [one[:3] for one in timed.labels]
        beams.push(LONG[:4])
        beams.reset()
        beams.push(LONG)
        assert beams.finish().text == timed.text
    with pytest.raises(runtime.StateError, match="closed"):
        beams.push(LONG)


# ------------------------------------------------------------------------------------------------ what every class says
def test_files_that_are_not_of_the_task_say_what_they_are() -> None:
    for found, data in (("for the task 'rater'", RIGHT["rater"]()), ("of no task", causal_file())):
        with pytest.raises(ModelFileError) as caught:
            runtime.Tagger.load(data)
        assert str(caught.value) == (
            f"the file is {found}, expected 'tagger': export it with rnncore.export.export_model, or use "
            "rnncore.runtime.load for any model"
        )
    for labels in ("{}", "no", '[1, "a"]', '"abc"'):
        with pytest.raises(ModelFileError) as caught:
            runtime.Tagger.load(file("tagger", BY_STEP, "LogSoftmax", labels=labels))
        assert str(caught.value) == f"rnncore.labels in the file is {labels!r}, expected a JSON list of strings"


@pytest.mark.parametrize(
    ("task", "axes", "operators", "says"),
    [
        (
            "tagger",
            WHOLE,
            "ReduceMean LogSoftmax",
            "outputs are [['batch', 3]], expected one ['batch', 'time'] + features",
        ),
        ("classifier", BY_STEP, "LogSoftmax", "outputs are [['batch', 'time', 3]], expected one ['batch'] + features"),
        ("rater", WHOLE, "ReduceMean", "outputs are [['batch', 3]], expected one ['batch'] + features"),
        ("recogniser", BY_STEP, "LogSoftmax", "the output has 3 features, expected 4"),
        ("tagger", BY_STEP, "LogSoftmax", "the output has 3 features, expected 2"),
    ],
)
def test_shapes_that_are_not_those_of_the_task(task: str, axes: Any, operators: str, says: str) -> None:
    labels = json.dumps(LABELS[:2] if task == "tagger" and axes is BY_STEP else LABELS)
    with pytest.raises(ModelFileError) as caught:
        runtime.open(file(task, axes, operators, labels=labels))
    assert str(caught.value) == f"the file says that it is a {task}, but it is not:\n  - {says}"


def test_inputs_that_cannot_be_read_are_named() -> None:
    tagger = opened("tagger")
    assert repr(tagger) == f"<Tagger {tagger.model!r}>"
    again = pickle.loads(pickle.dumps(tagger))
    assert again.tag(X[0]) == tagger.tag(X[0]) and again.labels == ("a", "b", "c")
    assert tagger.tag_many([]) == []
    for ask, says in (
        (lambda: tagger.tag_many("a text"), "got one text where several inputs are expected: put it in a list"),
        (
            lambda: tagger.tag_many(ROWS, [4, 2, 1]),
            "lengths go with a padded array only: each item of a list brings its own length",
        ),
        (
            lambda: tagger.tag("a text"),
            f"the file has no tokenizer, so it reads no text: hand in floats ['time', {FEATURES}]",
        ),
    ):
        with pytest.raises(InputError) as caught:
            ask()
        assert str(caught.value) == says


def test_the_small_question_is_the_same_each_time() -> None:
    model = opened("tagger").model
    first = probe(model)
    assert first.shape == (1, 3, CLASSES) and first.dtype == np.float64
    np.testing.assert_array_equal(first, probe(model))
    assert np.abs(first).max() > 0.1, "not of zeros"


def test_numbers_that_are_not_those_of_the_task_are_quoted() -> None:
    assert best_tagging_problem(np.array([[0.0, -1.0], [-2.0, 0.0]])) == best_tagging_problem(np.zeros((0, 2))) == ""
    assert best_tagging_problem(np.array([[0.0, -1.0], [0.25, -3.0], [-0.125, -1]])) == (
        "not scores of tags chosen together (the largest of a step is 0.25, expected 0): use rnncore.Tagger"
    )
    assert "is nan" in best_tagging_problem(np.array([[5.0, 5.0], [np.nan, 0.0]]))
    assert unit_vector_problem(np.array([[0.6, 0.8], [1, 0]])) == ""
    assert unit_vector_problem(np.array([[0.6, 0.8], [0.0, 0.5], [0.0, 0.9]])) == (
        "not vectors of length 1 (one has 0.5): end its forward with torch.nn.functional.normalize"
    )
    assert "one has nan" in unit_vector_problem(np.array([[9.0, 8.0], [np.nan, 0.0]]))
    for right in ([0.0, 1.0], [0.5], [1.00001], []):
        assert bounds_problem(np.array(right), (0.0, 1.0)) == ""
    for wrong in ([1.1, 0.5], [-0.1, 0.5], [np.nan], [np.inf]):
        assert bounds_problem(np.array(wrong), (0.0, 1.0)) == (
            f"not ratings from 0 to 1 (one is {wrong[0]:.3g}): bound them in its forward"
        )
    assert (
        bounds_problem(np.array([1e9]), (-np.inf, np.inf))
        == ""
        != bounds_problem(np.array([np.inf]), (-np.inf, np.inf))
    )


@pytest.mark.parametrize("seed", [0, 7, (3, 4)])
def test_random_numbers_of_each_sequence_are_drawn_when_they_are_asked_for(seed: Any) -> None:
    wanted = np.random.default_rng(seed).random((3, 5))
    found = Uniforms(seed, 3, 5)
    assert [[found.following(row) for _ in range(5)] for row in range(3)] == wanted.tolist()
    endless = Uniforms(seed, 2, 10**12)  # eight terabytes, if they were all drawn at first
    assert endless.following(0) == wanted[0, 0] and 0 <= endless.following(1) < 1
    assert Uniforms(None, 1, 9).following(0) != Uniforms(None, 1, 9).following(0)


def test_texts_end_where_they_end_however_many_tokens_are_allowed() -> None:
    model = runtime.LanguageModel.load(Path(__file__).parents[1] / "runtime" / "format1" / "language_model.onnx")
    few = model.sample(200, seed=3, prefix=["a", "b"])
    assert max(map(len, few)) < 200
    assert model.sample(10**12, seed=3, prefix=["a"]) == [few[0]] == [model.sample(10**12, seed=3, prefix="a")]
