"""n-best lists: read as a tree, scored as one by one; with and without picks in the file."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError, LanguageModel, UnknownTokenError, load
from rnncore.runtime.text import hypotheses as module
from rnncore.runtime.text.token_scorer import TokenScorer
from tests.language_models import (
    CHARACTERS,
    DEPTH,
    model_file,
    model_file_without_pick,
    runtime_model,
    torch_model,
    vocabulary,
)
from tests.tolerances import bound

# Few letters and short pieces: hypotheses that share beginnings, repeat each other and contain each other.
PIECES = st.lists(st.sampled_from(["a", "b", "ab", "中é", "abcde", CHARACTERS]), max_size=6).map("".join)
NBEST = st.lists(PIECES, max_size=12)


@cache
def model_without_pick() -> LanguageModel:
    return LanguageModel.load(model_file_without_pick())


def allowed(text: str) -> float:
    """Bound of a sum of log-probabilities, which lie within 0 to -30 here."""
    tokens = len(text) + 1
    return tokens * bound("float32", "chunked", depth=DEPTH, length=tokens, magnitude=30)


@given(NBEST, st.booleans(), st.booleans())
def test_rescoring_is_scoring_one_by_one(nbest: list[str], eos: bool, pick: bool) -> None:
    model = runtime_model() if pick else model_without_pick()
    scores = model.rescore(nbest, eos=eos)
    assert all(type(score) is float for score in scores)
    assert len(scores) == len(nbest)
    for text, score in zip(nbest, scores, strict=True):
        assert score == pytest.approx(runtime_model().score(text, eos=eos), abs=allowed(text))


@given(st.lists(NBEST, max_size=5), st.booleans())
def test_many_utterances_are_each_utterance(nbests: list[list[str]], eos: bool) -> None:
    model = runtime_model()
    many = model.rescore_many(nbests, eos=eos)
    assert [len(scores) for scores in many] == [len(nbest) for nbest in nbests]
    for nbest, scores in zip(nbests, many, strict=True):
        for text, score, alone in zip(nbest, scores, model.rescore(nbest, eos=eos), strict=True):
            assert score == pytest.approx(alone, abs=allowed(text))


@given(NBEST, st.integers(1, 3), st.integers(1, 9), st.integers(1, 5))
def test_small_calls_and_small_trees_change_nothing(nbest: list[str], rows: int, cells: int, tree: int) -> None:
    whole = runtime_model().rescore(nbest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", rows)
        patch.setattr(module, "_CELLS", cells)
        patch.setattr(module, "_TREE", tree)
        patch.setattr(module, "_AREA", 60)
        for text, one, other in zip(nbest, runtime_model().rescore(nbest), whole, strict=True):
            assert one == pytest.approx(other, abs=allowed(text))


@given(NBEST)
def test_every_distinct_beginning_is_read_once(nbest: list[str]) -> None:
    read = 0
    real = TokenScorer.score

    def counted(self: TokenScorer, states: object, ids: np.ndarray, asked: np.ndarray) -> object:
        nonlocal read
        read += ids.size
        return real(self, states, ids, asked)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenScorer, "score", counted)
        runtime_model().rescore(nbest)
    assert read == len({text[:n] for text in nbest for n in range(len(text))})


def test_ids_texts_and_arrays_are_hypotheses() -> None:
    model = runtime_model()
    ids = model.encode("abc")
    given_as = ["abc", ids, ids.tolist(), ids.astype(np.int32)]
    (score,) = set(model.rescore(given_as))
    assert score == pytest.approx(model.score("abc"), abs=allowed("abc"))


def test_nothing_to_score() -> None:
    model = runtime_model()
    assert model.rescore([]) == []
    assert model.rescore_many([]) == []
    assert model.rescore_many([[], ["", []]]) == [[], [0.0, 0.0]]
    assert model.rescore(["", []], eos=True) == pytest.approx([model.score("", eos=True)] * 2)


def test_equal_hypotheses_have_equal_scores_in_the_callers_order() -> None:
    first, second, third, fourth = runtime_model().rescore(["ba", "ab", "ba", "b"])
    assert first == third
    assert len({first, second, fourth}) == 3


def test_unknown_characters_are_named_with_their_hypotheses() -> None:
    model = runtime_model()
    with pytest.raises(UnknownTokenError, match=r"^hypothesis 1: .*'z' .* at position 2"):
        model.rescore(["ab", "abz", "b"])
    with pytest.raises(
        UnknownTokenError, match=r"(?s)2 problems.*utterance 0, hypothesis 1.*utterance 2, hypothesis 0"
    ):
        model.rescore_many([["a", "z"], [], ["x"]])


@pytest.mark.parametrize(
    ("hypothesis", "message"),
    [
        ([10_000], r"hypothesis 1 holds the id 10000 at \[0\]"),
        ([-1], r"hypothesis 1 holds the id -1"),
        ([0.5], r"hypothesis 1 has dtype float64"),
        ([[1]], r"hypothesis 1 has shape \[1, 1\]"),
        (None, r"hypothesis 1 is a NoneType"),
    ],
)
def test_wrong_hypotheses_are_named(hypothesis: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        runtime_model().rescore(["ab", hypothesis])  # type: ignore[list-item]


def test_a_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(InputError, match="n-best list 0 is a str, expected a list of hypotheses"):
        runtime_model().rescore("ab")
    with pytest.raises(InputError, match="n-best list 1 is a str"):
        runtime_model().rescore_many([["a"], "ab"])
    with pytest.raises(InputError, match="nbests is a str"):
        runtime_model().rescore_many("ab")


def test_the_limit_of_steps_bounds_calls_not_texts() -> None:
    limited = LanguageModel(load(model_file(), max_steps=3))
    text = CHARACTERS * 3
    assert limited.rescore([text, text + "a"])[0] == pytest.approx(runtime_model().score(text), abs=allowed(text))
    assert limited.score(text) == pytest.approx(runtime_model().score(text), abs=allowed(text))


# --------------------------------------------------------------------------------------------------------------- picks
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.randoms(use_true_random=False))
def test_picked_numbers_are_those_of_the_whole_output(batch: int, time: int, picks: int, random: object) -> None:
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    size = len(vocabulary())
    ids, at = rng.integers(0, size, (batch, time)), rng.integers(0, size, (batch, time, picks))
    for model in (runtime_model().model, model_without_pick().model):
        np.testing.assert_array_equal(model.run_picked(ids, at=at), np.take_along_axis(model.run(ids), at, 2))


def test_a_file_says_whether_it_can_be_asked() -> None:
    pick = runtime_model().model.signature.pick
    assert pick is not None
    assert (pick.of, pick.at, pick.picked) == ("output", "output.at", "output.pick")
    assert model_without_pick().model.signature.pick is None
    assert runtime_model().model.inputs == model_without_pick().model.inputs == ("ids",)
    assert runtime_model().model.outputs == model_without_pick().model.outputs == ("output",)


def test_export_verifies_the_picks() -> None:
    details = [case["detail"] for case in runtime_model().model.report["cases"]]
    assert "3 picked a step" in details
    assert torch_model().training is False


@pytest.mark.parametrize("pick", [True, False])
def test_whole_answers_do_not_depend_on_picks(pick: bool) -> None:
    model = runtime_model() if pick else model_without_pick()
    text = "abc中\n"
    assert model.score(text) == pytest.approx(
        math.fsum(s.log_prob for s in model.token_scores(text)), abs=allowed(text)
    )


def test_wrong_indices_are_refused() -> None:
    model, ids = runtime_model().model, np.zeros((2, 3), np.int64)
    at = np.zeros((2, 3, 1), np.int64)
    assert model.run_picked(ids[:, :0], at=at[:, :0]).shape == (2, 0, 1)
    assert model.run_picked(ids, at=at[:, :, :0]).shape == (2, 3, 0)
    with pytest.raises(InputError, match="at is for 1 sequences of 3 steps, the input has 2 of 3"):
        model.run_picked(ids, at=at[:1])
    with pytest.raises(InputError, match="at holds the id 99"):
        model.run_picked(ids, at=at + 99)
