"""States of texts as values: whatever is forked, dropped and reordered, the scores are those of the texts alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError, LanguageModel, StateError, TextStates
from tests.language_models import DEPTH, model_file, model_file_without_pick, runtime_model, vocabulary
from tests.tolerances import bound

TOKENS = st.integers(0, len(vocabulary()) - 1)


def log_probs_alone(tokens: list[int]) -> tuple[list[float], np.ndarray]:
    """Log-probability of each token of one text, and of every token as the next one."""
    with runtime_model().stream() as stream:
        return [stream.push(token) for token in tokens], stream.next_log_probs()


def assert_equal(found: np.ndarray, expected: object, length: int) -> None:
    allowed = bound("float32", "chunked", depth=DEPTH, length=length, magnitude=30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed)


@given(st.data(), st.booleans())
def test_a_search_scores_what_each_text_scores_alone(data: st.DataObject, pick: bool) -> None:
    model = runtime_model() if pick else LanguageModel.load(model_file_without_pick())
    texts: list[list[int]] = [[] for _ in range(data.draw(st.integers(1, 3)))]
    states = model.initial_states(len(texts))
    for _ in range(data.draw(st.integers(0, 6))):
        parents = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=5))
        chosen, selected = [texts[parent] for parent in parents], states.select(parents)
        if data.draw(st.booleans()):
            expected = [log_probs_alone(text)[1] for text in chosen]
            assert_equal(model.next_log_probs(selected), expected, 8)
        if data.draw(st.booleans()):
            selected = pickle.loads(pickle.dumps(selected))
        tokens = data.draw(st.lists(TOKENS, min_size=len(parents), max_size=len(parents)))
        log_probs, states = model.score_tokens(selected, tokens)
        texts = [[*text, token] for text, token in zip(chosen, tokens, strict=True)]
        assert_equal(log_probs, [log_probs_alone(text)[0][-1] for text in texts], 8)
        assert len(states) == len(texts)


@given(st.lists(TOKENS, min_size=1, max_size=4), st.data())
def test_select_is_running_again_in_that_order(first: list[int], data: st.DataObject) -> None:
    model = runtime_model()
    order = data.draw(st.lists(st.integers(0, len(first) - 1), max_size=6))
    _, states = model.score_tokens(model.initial_states(len(first)), first)
    _, again = model.score_tokens(model.initial_states(len(order)), [first[i] for i in order])
    assert_equal(model.next_log_probs(states.select(order)), model.next_log_probs(again), 2)


def test_states_stay_what_they_are() -> None:
    model = runtime_model()
    _, states = model.score_tokens(model.initial_states(2), [1, 2])
    before = model.next_log_probs(states)
    tokens = np.array([3, 4])
    log_probs, after = model.score_tokens(states, tokens)
    after_before = model.next_log_probs(after)
    tokens[:] = 0
    np.testing.assert_array_equal(log_probs, before[[0, 1], [3, 4]])
    before[:] = 7
    again, _ = model.score_tokens(states, [3, 4])
    np.testing.assert_array_equal(again, log_probs)
    np.testing.assert_array_equal(model.next_log_probs(after), after_before)


def test_a_forked_text_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = runtime_model()
    _, states = model.score_tokens(model.initial_states(2), [1, 2])
    rows = []
    real = model._scorer.score
    monkeypatch.setattr(model._scorer, "score", lambda s, read, asked: rows.append(len(read)) or real(s, read, asked))
    log_probs, _ = model.score_tokens(states.select([0, 1, 1, 0, 0]), [5, 6, 7, 8, 5])
    assert rows == [2]
    assert_equal(
        log_probs,
        [log_probs_alone([1 + i, t])[0][-1] for i, t in zip((0, 1, 1, 0, 0), (5, 6, 7, 8, 5), strict=True)],
        3,
    )


def test_going_on_from_what_was_asked_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = runtime_model()
    states = model.initial_states(3)
    log_probs = model.next_log_probs(states)

    def refuse(*_: object) -> None:
        raise AssertionError("ran again")

    with monkeypatch.context() as patch:
        patch.setattr(model._scorer, "score", refuse)
        patch.setattr(model._scorer, "score_all", refuse)
        scored, _ = model.score_tokens(states.select([2, 0]), [4, 5])
    np.testing.assert_array_equal(scored, log_probs[[2, 0], [4, 5]])


def test_beams_of_several_utterances_become_one_batch() -> None:
    model = runtime_model()
    _, one = model.score_tokens(model.initial_states(2), [1, 2])
    _, two = model.score_tokens(one.select([1]), [3])
    joined = TextStates.concatenate([two, one.select([1, 0]), model.initial_states(1)])
    expected = [log_probs_alone(text)[1] for text in ([2, 3], [2], [1], [])]
    assert len(joined) == 4
    assert_equal(model.next_log_probs(joined), expected, 4)
    with pytest.raises(InputError, match="no states to concatenate"):
        TextStates.concatenate([])


def test_no_texts_at_all() -> None:
    model = runtime_model()
    for states in (model.initial_states(0), model.initial_states(2).select([])):
        log_probs, after = model.score_tokens(states, [])
        assert log_probs.shape == (0,)
        assert len(after) == 0
        assert model.next_log_probs(states).shape == (0, len(vocabulary()))


def test_states_of_another_model_are_refused() -> None:
    other = LanguageModel.load(model_file_without_pick()).initial_states(1)
    with pytest.raises(StateError, match="belong to another model"):
        runtime_model().score_tokens(other, [1])
    with pytest.raises(StateError, match="belong to another model"):
        runtime_model().next_log_probs(other)
    with pytest.raises(StateError, match="different models"):
        TextStates.concatenate([other, runtime_model().initial_states(1)])
    same_file = LanguageModel.load(model_file()).initial_states(1)
    assert runtime_model().next_log_probs(same_file).shape == (1, len(vocabulary()))


def test_wrong_arguments_are_refused() -> None:
    model = runtime_model()
    states = model.initial_states(2)
    for count in (-1, 1.5, True, None):
        with pytest.raises(InputError, match="batch is"):
            model.initial_states(count)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 tokens for 2 texts"):
        model.score_tokens(states, [1])
    with pytest.raises(InputError, match="tokens holds the id 99"):
        model.score_tokens(states, [1, 99])
    with pytest.raises(InputError, match="states is a list"):
        model.score_tokens([], [])  # type: ignore[arg-type]
    for indices in ([2], [-1]):
        with pytest.raises(InputError, match="these are the states of 2 texts"):
            states.select(indices)
    with pytest.raises(InputError, match="indices has dtype float64"):
        states.select([0.5])  # type: ignore[list-item]
    assert repr(states) == "<TextStates of 2 texts>"
