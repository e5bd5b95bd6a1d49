"""Classes of tasks on files made by hand, number by number, and what each part says to arguments that it cannot use."""

from __future__ import annotations

import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime import BeamDecoder, BeamOptions, Endpointing, InputError, ModelFileError
from rnncore.runtime.tasks.alignment import align
from rnncore.runtime.tasks.calibration import calibrate
from rnncore.runtime.tasks.claims import best_tagging_problem, bounds_problem, probe, unit_vector_problem
from rnncore.runtime.tasks.ctc import beam_search, collapse
from rnncore.runtime.tasks.endpointing import Endpointer
from rnncore.runtime.tasks.hot_words import HotWords
from rnncore.runtime.tasks.language_fusion import LanguageFusion
from rnncore.runtime.tasks.prefix_beam import Beam, PrefixBeam
from rnncore.runtime.tasks.spans import Span, count_spans
from rnncore.runtime.tasks.vectors import cosines, nearest
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


# ---------------------------------------------------------------------------------------------------- decoding of frames
FRAMES = np.log([[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])


def test_a_decoder_says_when_each_label_was_and_begins_again() -> None:
    decoder = BeamDecoder("ab", 50, Endpointing(after_speech=1, without_speech=3, longest=9))
    assert (decoder.text, decoder.ended) == ("", False)
    buffer = np.empty((1, 3))
    for t, frame in enumerate(FRAMES[:4]):
        buffer[:] = frame  # one array for all frames
        decoder.push(buffer)
        assert decoder.ended == (t > 0), "the second frame is a pause"
    best, second, *_ = decoder.hypotheses()
    assert best.labels == ("a", "b") and best.log_prob > second.log_prob
    found = decoder.finish()
    assert (found.text, found.log_prob) == ("ab", pytest.approx(best.log_prob))
    assert [(one.label, one.start, one.end) for one in found.labels] == [("a", 0, 1), ("b", 2, 4)]
    assert found.labels[1].log_prob == pytest.approx(np.log([0.8, 0.7]).mean())
    assert (decoder.text, decoder.ended, decoder.hypotheses()) == ("", False, [((), 0.0)])
    assert decoder.finish() == ("", 0.0, [])
    assert BeamOptions() == BeamOptions(16, None, 0.5, 0.0, {})
    assert (Endpointing().after_speech, Endpointing().without_speech, Endpointing().longest) == (27, 167, 667)


def test_silence_ends_an_utterance_after_as_many_frames_as_the_rules_say() -> None:
    rules = Endpointing(after_speech=2, without_speech=3, longest=6)
    for path, wanted in (
        ([0, 0], None),
        ([0, 0, 0], 3),
        ([1, 0], None),
        ([1, 0, 0, 0], 3),
        ([0, 0, 1, 0, 1, 0, 0], 6),
        ([1] * 6, 6),
        ([1] * 5, None),
    ):
        assert Endpointer(rules).push(np.array(path)) == wanted, path


def test_a_search_keeps_as_many_as_it_may_and_the_first_of_equals() -> None:
    search = PrefixBeam(2, 2)
    search.push(np.log([[0.2, 0.4, 0.4]]))
    assert search.best() == [Beam((1,), np.log(0.4), np.log(0.4)), Beam((2,), np.log(0.4), np.log(0.4))]
    search.reset()
    assert search.best() == [Beam((), 0.0, 0.0)]
    bonus = PrefixBeam(1, 9, bonus=2.0)
    bonus.push(np.log([[0.9, 0.1]]))
    assert [(one.labels, one.score) for one in bonus.best()] == [
        ((), pytest.approx(np.log(0.9))),
        ((1,), pytest.approx(np.log(0.1) + 2.0)),
    ]
    twin = search.fork()
    twin.push(np.log([[0.2, 0.4, 0.4]]))
    assert search.best() == [Beam((), 0.0, 0.0)]


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: PrefixBeam(0, 3), "labels is 0, expected an integer of at least 1"),
        (lambda: PrefixBeam(2, 3, bonus=float("nan")), "bonus is nan, expected a finite number"),
        (lambda: BeamDecoder("ab", BeamOptions(3, bonus="x")), "bonus is 'x', expected a finite number"),  # type: ignore[arg-type]
        (lambda: PrefixBeam(2, 3).push(np.zeros((2, 2))), "frames are [2, 2], expected [time, 3], blank first"),
        (lambda: PrefixBeam(2, 3).push(np.zeros(3)), "frames are [3], expected [time, 3], blank first"),
        (
            lambda: PrefixBeam(1, 3).push(np.array([[np.inf, 0.0]])),
            "frames hold NaN or +infinity, expected natural logarithms of probabilities",
        ),
        (
            lambda: PrefixBeam(1, 3).push(np.full((1, 2), -np.inf)),
            "frame 0 leaves nothing possible: its logarithms, or what scorers add, are all -infinity",
        ),
        (lambda: PrefixBeam(1, 3).push("ab"), "frames is a str, expected an array"),
        (lambda: beam_search(5.0, 3), "frames are [], expected [time, 2], blank first"),  # type: ignore[arg-type]
        (lambda: HotWords({"a": "x"}, "ab"), "the bonus of 'a' is 'x', expected a finite number"),  # type: ignore[dict-item]
        (lambda: HotWords({"ax": 1.0}, "ab"), "'ax' has ['x'], which the recogniser never says"),
        (lambda: HotWords({"": 1.0}, "ab"), "a hot word is empty"),
        (lambda: HotWords(["a"], "ab"), "hot_words is a list, expected a dict from word to bonus"),  # type: ignore[arg-type]
        (
            lambda: LanguageFusion("lm", "ab"),  # type: ignore[arg-type]
            "language_model is a str, expected a rnncore.runtime.LanguageModel",
        ),
        (lambda: align(np.zeros((3, 3)), [1.5]), "labels hold 1.5, expected integers from 1 on"),  # type: ignore[list-item]
        (lambda: align(np.zeros((3, 3)), [0]), "labels are [0], expected 1 to 2, frames [3, 3]"),
        (lambda: align(np.zeros((3, 3)), [3]), "labels are [3], expected 1 to 2, frames [3, 3]"),
        (lambda: align(np.zeros((1, 3)), [1, 2]), "1 frames cannot say 2 labels: expected at least 2"),
        (
            lambda: align(np.full((3, 3), np.nan), [1]),
            "log_probs hold NaN, expected natural logarithms of probabilities",
        ),
        (
            lambda: count_spans([["a"]], [["a"], []]),
            "predicted tags have lengths [1], the right ones [1, 0]: expected equal ones",
        ),
        (
            lambda: calibrate(np.eye(3), "aab", false_accepts="x"),  # type: ignore[arg-type]
            "false_accepts is 'x', expected a part of the unlike pairs, from 0 to 1",
        ),
        (
            lambda: calibrate(np.eye(3), "abc"),
            "3 vectors have 3 labels, expected at least two labels, one of them with two vectors",
        ),
        (
            lambda: calibrate(np.eye(3), "aaa"),
            "3 vectors have 1 labels, expected at least two labels, one of them with two vectors",
        ),
        (
            lambda: calibrate(np.eye(3), "aa"),
            "vectors are [3, 3] with 2 labels, expected [vectors, size] and as many",
        ),
        (lambda: calibrate(np.eye(2), [["a"], ["b"]]), "labels hold a list, expected strings, numbers or the like"),
        (lambda: calibrate([["a"]], "a"), "vectors holds <U1, expected real numbers"),
        (lambda: cosines([1, 2], [1, 2, 3]), "vectors are [2] and [3], expected [..., size] of the same size"),
        (
            lambda: cosines(np.zeros((1, 1, 2)), [1, 2]),
            "vectors are [1, 1, 2] and [2], expected [..., size] of the same size",
        ),
        (
            lambda: nearest([1, 2], np.zeros((4, 3))),
            "vector is [2], among [4, 3], expected [size] or [queries, size], and [vectors, size]",
        ),
        (lambda: nearest([1, 2], np.eye(2), 0), "count is 0, expected an integer of at least 1"),
        (
            lambda: nearest(np.ones((2, 2)), [[1, 2], [np.nan, 1]]),
            "vector 0 or vector 1 of among holds NaN or infinity, expected finite numbers",
        ),
        (lambda: Endpointing(0), "after_speech is 0, expected an integer of at least 1"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_was_expected(ask: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        ask()
    assert str(caught.value) == says


def test_rows_of_different_lengths_are_no_vectors() -> None:
    for ask in (lambda: nearest([1, 2], [[1, 2], [1]]), lambda: cosines([1, 2], [[1, 2], [1]])):
        with pytest.raises(InputError, match=r"^(among|others) cannot be made an array: "):
            ask()


def test_a_language_model_lends_its_weight_to_labels() -> None:
    model = runtime.LanguageModel.load(Path(__file__).parents[1] / "runtime" / "format1" / "language_model.onnx")
    with pytest.raises(InputError) as caught:
        LanguageFusion(model, ("a", "z", "y"))
    assert str(caught.value) == "the language model has no token 'z' (nor 1 more of the labels)"
    for weight in (np.inf, "x", None):
        with pytest.raises(InputError, match=r"^weight is .*, expected a finite number$"):
            LanguageFusion(model, "ab", weight)  # type: ignore[arg-type]
    fusion = LanguageFusion(model, ("a", "b"), 0.25)
    state, first = fusion.start()
    state, second = fusion.advance(state, np.array([0, 0]), np.array([1, -1]))
    np.testing.assert_array_equal(second[1], first[0])
    wanted = [0.25 * (model.score(f"b{c}", eos=False) - model.score("b", eos=False)) for c in "ab"]
    np.testing.assert_allclose(second[0], wanted, atol=fixed("float32 score"))
    ends = fusion.end(state)
    wanted_end = 0.25 * (model.score("b", eos=True) - model.score("b", eos=False))
    assert ends[0] == pytest.approx(wanted_end, abs=fixed("float32 score"))
    assert not LanguageFusion(model, ("a", "b"), 0.0).start()[1].any()


# ----------------------------------------------------------------------------------------------------- vectors and spans
def test_neighbours_by_hand_in_parts_of_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    among = np.array([[2.0, 0], [0, 0], [0, 3], [1, 1], [4, 0]])
    wanted = [[(0, 1.0), (4, 1.0), (3, 0.5**0.5)], [(2, 1.0), (3, 0.5**0.5), (0, 0.0)]]
    for at_once in (1, 5, 9, 10**6):
        monkeypatch.setattr("rnncore.runtime.tasks.vectors._SCORES_AT_ONCE", at_once)
        found = nearest(np.array([[5.0, 0], [0, 0.5]]), among, 3)
        assert [[one.place for one in row] for row in found] == [[place for place, _ in row] for row in wanted]
        np.testing.assert_allclose(np.array(found)[..., 1], np.array(wanted)[..., 1])
    assert nearest([1.0, 0], among, 99)[-1].place in (1, 2) and len(nearest([1.0, 0], among, np.int64(99))) == 5
    assert nearest([1.0, 0], np.zeros((0, 2))) == []
    assert nearest([3.0, 0], among, normalised=True) == [(4, 12.0)]
    singles = nearest(np.array([1.0, 1], np.float32), among.astype(np.float32))
    assert singles == [(3, pytest.approx(1.0))]
    assert cosines(np.array([0.0, 0]), among).tolist() == [0.0] * 5


def test_thresholds_by_hand() -> None:
    """Cosines: 1 within a; 0.6 within b; unlike pairs 0.8, 0, 0.8, 0."""
    vectors = np.array([[1.0, 0], [2, 0], [0.8, 0.6], [0, 1]])
    labels = ["a", "a", "b", "b"]
    assert calibrate(vectors, labels, false_accepts=0.5) == (pytest.approx(0.6), 0.5, 0.0)
    assert calibrate(vectors, labels, false_accepts=0) == (pytest.approx(1.0), 0.0, 0.5)
    assert calibrate(vectors, labels, false_accepts=1) == (pytest.approx(0.0), 1.0, 0.0)
    assert calibrate(vectors, labels)[1:] in ((0.5, 0.5), (0.5, 0.0))
    assert calibrate([[1.0, 0], [0, 1], [1, 0]], ["a", "a", "b"], false_accepts=0).false_rejects == 1.0


def test_spans_are_counted_by_sequence() -> None:
    counts = count_spans([["B-x"], ["B-x"]], [["B-x"], ["O"]])
    assert counts == (1, 2, 1) and (counts.precision, counts.recall, counts.f1) == (0.5, 1.0, 2 / 3)
    nothing = count_spans([], [])
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)
    assert runtime.spans_of(["O", "B-x", "I-x", "y", "y"]) == [Span("x", 1, 3), Span("y", 3, 5)]
