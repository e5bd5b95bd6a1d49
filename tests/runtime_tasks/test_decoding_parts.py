"""Decoding of frames, vectors and spans, part by part, and what each says to arguments that it cannot use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncore import runtime
from rnncore.runtime import BeamDecoder, BeamOptions, Endpointing, InputError
from rnncore.runtime.tasks.alignment import align
from rnncore.runtime.tasks.calibration import calibrate
from rnncore.runtime.tasks.ctc import beam_search
from rnncore.runtime.tasks.endpointing import Endpointer
from rnncore.runtime.tasks.hot_words import HotWords
from rnncore.runtime.tasks.language_fusion import LanguageFusion
from rnncore.runtime.tasks.prefix_beam import Beam, PrefixBeam
from rnncore.runtime.tasks.spans import Span, count_spans
from rnncore.runtime.tasks.vectors import cosines, nearest
from tests.tolerances import fixed

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
    for label, letter in enumerate("ab"):
        after, second = fusion.advance(state, np.array([0, 0]), np.array([label, -1]))
        np.testing.assert_array_equal(second[1], first[0])
        wanted = [0.25 * (model.score(f"{letter}{c}", eos=False) - model.score(letter, eos=False)) for c in "ab"]
        np.testing.assert_allclose(second[0], wanted, atol=fixed("float32 score"))
    ends = fusion.end(after)
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
