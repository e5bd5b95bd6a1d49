"""Beams of a real file: with a language model and hot words, in chunks, with the frames of each label and endpoints."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore import runtime
from rnncore.runtime import BeamOptions, Endpointing, InputError
from rnncore.runtime.tasks.language_fusion import LanguageFusion
from tests.language_models import runtime_model
from tests.strategies import SEEDS, chunkings
from tests.task_models import model_file, sequences
from tests.tolerances import fixed


@cache
def recogniser() -> runtime.Recogniser:
    return runtime.Recogniser.load(model_file("recogniser"))


def options(beams: int = 6, **more: Any) -> BeamOptions:
    return BeamOptions(beams, language_model=runtime_model(), weight=0.7, bonus=0.3, **more)


@given(st.integers(0, 4), SEEDS)
def test_a_wide_search_ranks_all_texts_by_frames_and_language_model(time: int, seed: int) -> None:
    (frames,) = sequences("recogniser", [time], seed)
    plain = {hypothesis.labels: hypothesis.log_prob for hypothesis in recogniser().hypotheses(frames, beams=4000)}
    fused = recogniser().hypotheses(frames, beams=options(4000))
    assert {hypothesis.labels for hypothesis in fused} == plain.keys()
    model = runtime_model()
    scores = [plain[labels] + 0.7 * model.score("".join(labels), eos=True) + 0.3 * len(labels) for labels, _ in fused]
    assert all(a >= b - 1e-4 for a, b in pairwise(scores))
    assert all(abs(log_prob - plain[labels]) < fixed("float64 sum") for labels, log_prob in fused)


@given(chunkings(13), SEEDS)
def test_chunks_give_what_the_whole_gives_and_then_another_utterance(chunks: list[int], seed: int) -> None:
    (frames,) = sequences("recogniser", [13], seed)
    chosen = options(hot_words={"ab": 1.5})
    whole = recogniser().timed(frames, beams=chosen)
    with recogniser().beam_stream(chosen) as stream:
        for start, size in zip(np.cumsum([0, *chunks[:-1]]), chunks, strict=True):
            said = stream.push(frames[start : start + size])
            with pytest.raises(InputError):
                stream.push(frames[:, :2])
            with pytest.raises(InputError, match="NaN"):
                stream.push(np.full_like(frames[:1], np.nan))
        assert set(said) <= set("ab ")
        found = stream.finish()
        assert stream.finish() == ("", pytest.approx(0.0), [])
        stream.reset()
        stream.push(frames)
        assert stream.finish().text == whole.text
    assert found.text == whole.text == recogniser().recognise(frames, beams=chosen)
    assert found.log_prob == pytest.approx(whole.log_prob, abs=fixed("float32 score"))
    assert "".join(one.label for one in whole.labels) == whole.text
    assert [(one.label, one.start, one.end) for one in found.labels] == [
        (one.label, one.start, one.end) for one in whole.labels
    ]
    ends = [0, *(time for one in whole.labels for time in (one.start, one.end))]
    assert ends == sorted(ends)


def test_a_hot_word_wins_where_the_frames_are_in_doubt_and_endpoints_show() -> None:
    task = recogniser()
    (frames,) = sequences("recogniser", [9], 4)
    cold = task.recognise(frames, beams=BeamOptions(50))
    hot = task.recognise(frames, beams=BeamOptions(50, hot_words={"aba": 60.0}))
    assert "aba" not in f" {cold}"
    assert " aba" in f" {hot}"
    with task.beam_stream(4, Endpointing(after_speech=100, without_speech=100, longest=5)) as stream:
        ended = []
        for t in range(9):
            stream.push(frames[t : t + 1])
            ended.append(stream.ended)
            if stream.ended:
                stream.finish()
        assert ended == [False] * 4 + [True] + [False] * 4


def test_a_language_model_without_the_labels_is_refused() -> None:
    with pytest.raises(InputError, match="no token 'z'"):
        LanguageFusion(runtime_model(), ("a", "z"))
