"""Lists and corpora of any lengths: the caller's order, the answers of each sequence alone, and little memory."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore import runtime
from tests.runtime.data import BOUND, model, named, sequence, voice
from tests.runtime.files import Spec, not_causal_file, not_causal_reference, reference
from tests.service.alone import SPECS, assert_same

SPEC = Spec(lengths=True, learned=True)


def assert_reference(spec: Spec, item: np.ndarray, speaker: np.ndarray, output: Any) -> None:
    wanted = reference(spec, item, speaker)
    for name, array in named(spec, output).items():
        np.testing.assert_allclose(array, wanted[name], **BOUND)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=20), data=st.data())
def test_run_and_run_iter_answer_each_sequence_in_order(spec: Spec, lengths: list[int], data: st.DataObject) -> None:
    rng = np.random.default_rng(14)
    if spec.last and not spec.lengths:
        lengths = [max(n, 1) for n in lengths]
    items = [sequence(spec, rng, n) for n in lengths]
    speakers = [voice(rng) for _ in lengths]
    whole = model(spec).run(items, np.stack(speakers)) if spec.speaker else model(spec).run(items)
    sequences = list(zip(items, speakers, strict=True)) if spec.speaker else items
    options = {
        "batch_size": data.draw(st.integers(1, 6)),
        "window": data.draw(st.integers(1, 9)),
        "padding_budget": data.draw(st.sampled_from([0, 0.25, 10.0])),
        "read_ahead": data.draw(st.booleans()),
    }
    progress: list[tuple[int, int]] = []
    answers = list(model(spec).run_iter(iter(sequences), progress=lambda *now: progress.append(now), **options))
    assert len(answers) == len(items)
    for i, (item, speaker, answer) in enumerate(zip(items, speakers, answers, strict=True)):
        assert_reference(spec, item, speaker, answer)
        ours = {name: column[i] for name, column in named(spec, whole).items()}
        assert_reference(spec, item, speaker, ours if spec.last else ours["y"])
    assert progress[-1] == (len(items), sum(lengths))
    assert [count for count, _ in progress] == sorted(count for count, _ in progress)


@pytest.mark.parametrize("with_lengths", [False, True])
def test_models_that_do_not_stream(with_lengths: bool) -> None:
    net = runtime.load(not_causal_file(with_lengths))
    rng = np.random.default_rng(15)
    items = [sequence(Spec(), rng, int(n)) for n in rng.integers(0, 9, 40)]
    for answers in (net.run(items), list(net.run_iter(items, batch_size=8, window=16))):
        for item, answer in zip(items, answers, strict=True):
            np.testing.assert_allclose(answer, not_causal_reference(item), **BOUND)


def test_ten_thousand_random_lengths_in_bounded_memory() -> None:
    count = 10_000

    def corpus() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(16)
        for n in rng.integers(1, 40, count):
            yield np.full((int(n), 13), n, "f")

    def peak(sequences: Any, read_ahead: bool = False) -> tuple[int, int]:
        tracemalloc.start()
        seen = 0
        for y in model(SPEC).run_iter(sequences, window=256, read_ahead=read_ahead):
            seen += len(y)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return seen, size

    lengths = np.random.default_rng(16).integers(1, 40, count)
    _, some = peak(itertools.islice(corpus(), 512))
    steps, most = peak(corpus())
    assert steps == lengths.sum()
    whole = int(lengths.sum()) * 11 * 4
    assert most < 1.5 * some and most < whole / 5
    assert peak(itertools.islice(corpus(), 1024), read_ahead=True)[1] < 3 * some


def test_the_next_window_is_read_while_answers_of_this_one_are_wanted() -> None:
    begun, readers = threading.Event(), []

    def source() -> Iterator[np.ndarray]:
        for i in range(12):
            readers.append(threading.current_thread())
            if i == 4:
                begun.set()
            yield np.full((3, 13), i, "f")

    answers = model(SPEC).run_iter(source(), window=4, read_ahead=True)
    first = next(answers)
    assert begun.wait(60), "three answers of the first window are not taken yet"
    found = [first, *(next(answers) for _ in range(6))]
    for i, answer in enumerate(found):
        assert_same(answer, model(SPEC).run(np.full((1, 3, 13), i, "f"))[0])
    answers.close()  # type: ignore[attr-defined]
    assert len(set(readers)) == 1 and readers[0] is not threading.current_thread()
    readers[0].join(60)
    assert not readers[0].is_alive(), "whoever stops early is not left with a thread"


@pytest.mark.parametrize("read_ahead", [False, True])
def test_a_wrong_sequence_is_named_after_the_windows_before_it(read_ahead: bool) -> None:
    rng = np.random.default_rng(17)
    good = [sequence(SPEC, rng, 3) for _ in range(4)]
    answers = model(SPEC).run_iter([*good, np.ones((2, 14), "f")], window=2, read_ahead=read_ahead)
    for item in good:
        assert_reference(SPEC, item, voice(rng), next(answers))
    with pytest.raises(runtime.InputError, match=r"sequence 4.*14 features"):
        next(answers)
    with pytest.raises(runtime.InputError, match="sequence 5 has no steps"):
        list(model(Spec(last=True, time_major=True)).run_iter([good[0]] * 5 + [good[0][:0]], window=3))


def test_nothing_in_nothing_out_and_options_are_checked() -> None:
    assert list(model(SPEC).run_iter([])) == []
    for wrong in ({"batch_size": 0}, {"window": 2.5}, {"padding_budget": -0.1}, {"padding_budget": float("nan")}):
        with pytest.raises(runtime.InputError, match=next(iter(wrong))):
            model(SPEC).run_iter([], **wrong)


def test_sequences_by_name_and_as_tuples() -> None:
    spec = Spec(lengths=True, learned=True, last=True, speaker=True)
    rng = np.random.default_rng(18)
    item, speaker = sequence(spec, rng, 4), voice(rng)
    first, second = model(spec).run_iter([{"x": item, "speaker": speaker}, (item, speaker)])
    assert_same(first, second)
    with pytest.raises(runtime.InputError, match=r"sequence 0.*'speaker' is missing"):
        next(model(spec).run_iter([item]))
