"""Reading and grouping of batches and lists, on layouts alone: what is grouped, what is told, what is put in the padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnncore.runtime import InputError, Signature, TensorSpec
from rnncore.runtime.batching.buckets import buckets, quickest
from rnncore.runtime.batching.padded import read_batch
from rnncore.runtime.batching.ragged import check_ragged, read_ragged
from rnncore.runtime.format.axes import Axis, Steps
from rnncore.runtime.format.options import Option
from rnncore.runtime.tensors.fast_validation import FastReader
from rnncore.runtime.tensors.specs import Layout
from tests.runtime.data import model
from tests.runtime.files import Spec

X = TensorSpec("x", "float32", ("batch", "time", 2))
IDS = TensorSpec("ids", "int64", ("batch", "time"), 9, 1)
Y = TensorSpec("y", "float32", ("batch", "time", 4))
SPEAKER = TensorSpec("speaker", "float32", ("batch", 3))
GAIN = Option("gain", 1.0, minimum=0.0)


def layout(
    *inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (Y,), max_steps: int | None = None, **more: Any
) -> Layout:
    return Layout.of(Signature(inputs, outputs, **more), max_steps)


def x(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def refused(call: Any) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- groups
def test_sequences_share_a_call_while_padding_is_within_the_budget() -> None:
    assert buckets([5, 10, 6, 7, 9, 8]) == [[1, 4, 5, 3, 2], [0]], (
        "10 padded steps beside 40 are a quarter, 15 are more"
    )
    assert buckets([10, 9, 8, 7, 6, 5], padding_budget=0.5) == [[0, 1, 2, 3, 4, 5]]
    assert buckets([3, 1, 3, 0, 1, 0], padding_budget=0) == [[0, 2], [1, 4], [3, 5]]
    assert buckets([2, 2, 2, 2, 2], batch_size=2) == [[0, 1], [2, 3], [4]]
    assert [len(group) for group in buckets([1] * 65)] == [64, 1]
    assert buckets([8, 2, 2, 1]) == [[0], [1, 2, 3]], "a new group counts its own padding only: 1 beside 5"
    assert buckets([0, 0, 1], padding_budget=9.0) == [[2], [0, 1]] and buckets([]) == []


def test_few_are_grouped_by_what_calls_cost() -> None:
    assert quickest([]) == [] and quickest([0, 0]) == [[0, 1]] and quickest([4]) == [[0]]
    assert quickest([9] * 33) == buckets([9] * 33) == [list(range(33))]
    lengths = [40, 8] * 16
    assert quickest([*lengths, 1]) == buckets([*lengths, 1]) != quickest(lengths)
    # Together 2.5 + 1.5 + 20 * (1.05 + 0.56) = 36.2; alone 2.5 + 20 and 2.5 + 12, or 2.5 + 11.
    assert quickest([20, 12]) == [[0, 1]] and quickest([20, 11]) == [[0], [1]]
    # Equal ones: 2.5 + n * (0.7 + 0.56) against 2 * (2.5 + n).
    assert quickest([2, 2]) == [[0, 1]] and quickest([500, 500]) == [[0, 1]]
    # 4 + 30 * (1.05 + 0.84) = 60.7 against 26.5 + 27.5 + 32.5 = 86.5 alone.
    assert quickest([25, 30, 24]) == [[1, 0, 2]]


# -------------------------------------------------------------------------------------------------------------- arrays
def test_a_batch_says_how_many_and_how_long() -> None:
    known = layout(X, SPEAKER)
    batch = read_batch(known, {"x": x(3, 5, 2), "speaker": x(3, 3)}, None)
    assert (batch.size, batch.steps, batch.lengths, list(batch.arrays)) == (3, 5, None, ["x", "speaker"])
    assert read_batch(known, {"x": x(3, 5, 2), "speaker": x(3, 3)}, [5, 5, 5]).lengths is None
    own = read_batch(known, {"x": x(3, 5, 2), "speaker": x(3, 3)}, [5, 0, 2]).lengths
    assert own is not None and own.tolist() == [5, 0, 2] and own.dtype == np.int64
    timed = layout(X, TensorSpec("z", "float32", ("time", "batch", 1)))
    assert refused(lambda: read_batch(timed, {"x": x(3, 5, 2), "z": x(4, 3, 1)}, None)) == (
        "inputs differ in their number of steps: 'x' has 5, 'z' has 4"
    )
    assert read_batch(timed, {"x": x(3, 5, 2), "z": x(5, 3, 1)}, None).steps == 5


def test_what_is_wrong_with_a_batch_is_told_all_at_once() -> None:
    known = layout(X, SPEAKER)
    assert refused(lambda: read_batch(known, {"x": x(3, 5, 3), "speaker": x(3, 4)}, None)) == (
        "2 problems:\n  - input 'x' has 3 features, the model expects 2\n  - input 'speaker' has 4 features, the model expects 3"
    )
    assert refused(lambda: read_batch(known, {"x": x(0, 5, 2), "speaker": x(0, 3)}, None)) == (
        "the batch is empty: hand in at least one sequence"
    )
    assert refused(lambda: read_batch(layout(SPEAKER, outputs=(SPEAKER,)), {"speaker": x(2, 3)}, [1, 1])) == (
        "lengths were given, but no input of this model has a time axis"
    )
    short = layout(X, max_steps=4)
    says = "5 steps, this model was loaded with max_steps=4: use shorter parts"
    assert refused(lambda: read_batch(short, {"x": x(3, 5, 2)}, None)) == says
    assert refused(lambda: read_batch(short, {"x": [x(5, 2)] * 3}, None)) == says, "of what did not say so before"
    assert read_batch(short, {"x": x(3, 4, 2)}, None).steps == 4


def test_lengths_are_within_what_the_model_takes() -> None:
    known = layout(X, axes=(Axis("time", 2, 6, 2),))
    assert read_batch(known, {"x": x(2, 4, 2)}, [4, 2]).steps == 4
    assert refused(lambda: read_batch(known, {"x": x(3, 4, 2)}, [4, 2, 3])) == (
        "lengths[2] is 3, the model takes a multiple of 2, at least 2, at most 6 steps"
    )
    assert refused(lambda: read_batch(known, {"x": x(1, 5, 2)}, None)) == (
        "input 'x' has size 5 along axis 'time', expected a multiple of 2, at least 2, at most 6"
    )


def test_named_axes_agree_and_tied_ones_follow() -> None:
    wide = TensorSpec("x", "float32", ("batch", "time", "width"))
    mask = TensorSpec("mask", "float32", ("width", "batch"))
    known = layout(wide, mask, axes=(Axis("width", 2),))
    assert read_batch(known, {"x": x(3, 4, 5), "mask": x(5, 3)}, None).size == 3
    assert refused(lambda: read_batch(known, {"x": x(3, 4, 5), "mask": x(6, 3)}, None)) == (
        "inputs differ in their number of entries along axis 'width': 'x' has 5, 'mask' has 6"
    )
    half = TensorSpec("half", "float32", ("batch", Steps("time", 1, 1, 2)))
    tied = layout(X, half)
    assert read_batch(tied, {"x": x(3, 5, 2), "half": x(3, 3)}, None).steps == 5
    assert refused(lambda: read_batch(tied, {"x": x(3, 5, 2), "half": x(3, 2)}, None)) == (
        "input 'half' has size 2 along axis '(time+1)//2', expected 3, as 'x' has 5 along axis 'time'"
    )


def test_ids_in_the_padding_are_nobodys() -> None:
    given = np.array([[3, 4, 0], [5, 99, -7]])
    batch = read_batch(layout(IDS), {"ids": given}, [2, 1])
    assert batch.arrays["ids"].tolist() == [[3, 4, 1], [5, 1, 1]] and given[1, 1] == 99
    right = np.array([[3, 4, 8]])
    assert read_batch(layout(IDS), {"ids": right}, [2]).arrays["ids"].tolist() == [[3, 4, 8]], "nothing to mend"
    assert refused(lambda: read_batch(layout(IDS), {"ids": given}, [2, 2])) == (
        "input 'ids' holds the id 99 at [1, 1], the model knows 1 to 8"
    )
    assert refused(lambda: read_batch(layout(IDS), {"ids": given}, None)) == (
        "input 'ids' holds the id 0 at [0, 2], the model knows 1 to 8"
    )
    assert read_batch(layout(IDS), {"ids": np.zeros((2, 0), int)}, [0, 0]).steps == 0


def test_options_are_filled_in_or_one_for_each_sequence() -> None:
    known = layout(X, TensorSpec("gain", "float32", ("batch",)), options=(GAIN,))
    assert read_batch(known, {"x": x(3, 1, 2)}, None).arrays["gain"].tolist() == [1, 1, 1]
    assert read_batch(known, {"x": x(3, 1, 2), "gain": 2}, None).arrays["gain"].tolist() == [2, 2, 2]
    assert refused(lambda: read_batch(known, {"x": x(3, 1, 2), "gain": np.ones(2, "f")}, None)) == (
        "inputs differ in their number of sequences: 'x' has 3, 'gain' has 2"
    )
    assert refused(lambda: read_batch(known, {"x": x(3, 1, 2), "gain": -1}, None)) == (
        "input 'gain' holds -1.0, expected at least 0, or nothing at all for 1"
    )


# --------------------------------------------------------------------------------------------------------------- lists
def read(known: Layout, **given: Any) -> Any:
    return read_ragged(known, given, FastReader(known))


def test_lists_are_read_one_by_one() -> None:
    found = read(layout(X), x=[x(3, 2), x(0, 2), x(1, 2).tolist()])
    assert found.lengths == [3, 0, 1] and [len(item["x"]) for item in found.items] == [3, 0, 1] and found.timeless == {}
    exact = read(layout(X), x=[x(3, 2), x(1, 2)])
    assert exact.lengths == [3, 1] and exact.timeless == {}
    assert read(layout(X), x=x(3, 2, 2)) is None
    both = read(layout(X, SPEAKER), x=[x(3, 2), x(1, 2)], speaker=x(2, 3))
    assert both.lengths == [3, 1] and both.timeless["speaker"].shape == (2, 3)
    option = read(layout(X, TensorSpec("gain", "float32", ("batch",)), options=(GAIN,)), x=[x(1, 2)] * 2, gain=3)
    assert option.timeless["gain"].tolist() == [3, 3]


def test_what_is_wrong_with_lists_is_told_by_its_place() -> None:
    z = TensorSpec("z", "float32", ("batch", "time", 1))
    known = layout(X, z, SPEAKER)
    assert refused(lambda: read(known, x=[x(3, 2)], z=x(1, 3, 1), speaker=x(1, 3))) == (
        "input 'x' is a list of sequences, 'z' is not: use lists for both"
    )
    assert refused(lambda: read(known, x=[x(3, 2)], z=[x(3, 1)] * 2, speaker=x(1, 3))) == (
        "inputs differ in their number of sequences: 'x' has 1, 'z' has 2"
    )
    assert refused(lambda: read(known, x=[], z=[], speaker=x(1, 3))) == (
        "the list of sequences is empty: hand in at least one"
    )
    assert refused(lambda: read(known, x=[x(3, 2), x(2, 2)], z=[x(3, 1), x(1, 1)], speaker=x(3, 3))) == (
        "2 problems:\n  - inputs differ in their number of steps, item 1: 'x' has 2, 'z' has 1\n"
        "  - inputs differ in their number of sequences: 'x' has 2, 'speaker' has 3"
    )
    assert refused(lambda: read(known, x=[x(1, 2)], z=[x(1, 1)], speaker=x(1, 4))) == (
        "input 'speaker' has 4 features, the model expects 3"
    )


def test_sequences_that_cannot_be_answered_together_are_named() -> None:
    free = layout(
        TensorSpec("x", "float32", ("batch", "time", "width")),
        outputs=(TensorSpec("y", "float32", ("batch", "time", "w")),),
    )
    assert refused(lambda: check_ragged(free, [{"x": x(3, 2)}, {"x": x(1, 4)}], [3, 1])) == (
        "items of input 'x' differ in an axis other than time: [(2,), (4,)]"
    )
    check_ragged(free, [{"x": x(3, 2)}, {"x": x(1, 2)}], [3, 1])
    named = layout(TensorSpec("x", "float32", ("batch", "time", "width")), axes=(Axis("width"),))
    check_ragged(named, [{"x": x(3, 2)}, {"x": x(1, 4)}], [3, 1])
    last = layout(X, outputs=(TensorSpec("y", "float32", ("batch", 4)),))
    items = [{"x": x(n, 2)} for n in (2, 0, 0)]
    assert refused(lambda: check_ragged(last, items, [2, 0, 0], 10)) == (
        "sequence 11, 12 has no steps, but output 'y' needs at least one: leave empty sequences out"
    )
    assert refused(lambda: check_ragged(last, [{"x": x(0, 2)}] * 7, [0] * 7)).startswith(
        "sequence 0, 1, 2, 3, 4, … has no"
    )
    check_ragged(layout(X), items, [2, 0, 0])
    counted = layout(
        X, outputs=(TensorSpec("y", "float32", ("batch", 4)),), lengths=TensorSpec("n", "int64", ("batch",))
    )
    check_ragged(counted, items, [2, 0, 0])


# ------------------------------------------------------------------------------------------------------------- corpora
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "batch_size is 0, expected an integer of at least 1"),
        ({"window": True}, "window is True, expected an integer of at least 1"),
        ({"padding_budget": -0.5}, "padding_budget is -0.5, expected a share of at least 0"),
        ({"padding_budget": float("inf")}, "padding_budget is inf, expected a share of at least 0"),
        ({"padding_budget": "0.1"}, "padding_budget is '0.1', expected a share of at least 0"),
        ({"padding_budget": None}, "padding_budget is None, expected a share of at least 0"),
        ({"progress": 5}, "progress is a int, expected a function or None"),
    ],
)
def test_options_of_a_corpus_are_checked_before_anything_is_read(options: dict[str, Any], says: str) -> None:
    def never() -> Any:
        raise AssertionError
        yield

    assert refused(lambda: model(Spec()).run_iter(never(), **options)) == says


class Places:
    """What can be iterated over by its places alone, as old data sets can."""

    def __init__(self, items: list[np.ndarray]) -> None:
        self.items = items

    def __getitem__(self, place: int) -> np.ndarray:
        return self.items[place]


def test_what_is_no_corpus_or_no_sequence_of_one_is_named() -> None:
    net, both = model(Spec()), model(Spec(lengths=True, learned=True, last=True, speaker=True))
    assert refused(lambda: net.run_iter(5)) == "sequences is a int, expected a list or anything else to iterate over"  # type: ignore[arg-type]
    good = x(2, 13)
    assert [len(y) for y in net.run_iter(Places([x(2, 13), x(3, 13)]))] == [2, 3]  # type: ignore[arg-type]
    answers = net.run_iter([good, x(2, 13)[None]], window=1)
    assert next(answers).shape == (2, 11)
    assert refused(lambda: next(answers)) == (
        "input 'x', sequence 1 has shape [1, 2, 13], the model expects [time, 13]: hand in one sequence, without a batch axis"
    )
    assert refused(lambda: next(both.run_iter([(good,)]))).startswith(
        "sequence 0: input 'speaker' is missing, expected x, "
    )
    found = list(both.run_iter([[good, x(3)], {"speaker": x(3), "x": good}]))
    np.testing.assert_array_equal(found[0]["y"], found[1]["y"])
    assert found[0]["last"].shape == (2,) and found[0]["last"].base is None
    told: list[tuple[int, int]] = []
    list(net.run_iter([x(n, 13) for n in (2, 1, 4)], window=2, progress=lambda *now: told.append(now)))
    assert told == [(2, 3), (3, 7)]


# --------------------------------------------------------------------------------------------------------------- picks
def test_what_cannot_be_picked_says_why() -> None:
    given = x(2, 3, 13)
    at = np.zeros((2, 3, 1), int)
    assert refused(lambda: model(Spec(last=True)).run_picked(given, at=at)) == (
        "nothing can be picked from this model: it takes one output [batch, time, size]"
    )
    assert refused(lambda: model(Spec(time_major=True)).run_picked(given, at=at)) == (
        "nothing can be picked from this model: it takes one output [batch, time, size]"
    )
    assert refused(lambda: model(Spec(open_width=True, learned=True)).run_picked(given, at=at)) == (
        "nothing can be picked from output 'y': the size of its last axis is free"
    )
    net = model(Spec())
    assert refused(lambda: net.run_picked(given, at=np.zeros((2, 4, 1), int))) == (
        "at is for 2 sequences of 4 steps, the input has 2 of 3"
    )
    assert refused(lambda: net.run_picked(given, at=np.full((2, 3, 1), 11))) == (
        "at holds the id 11 at [0, 0, 0], the model knows 0 to 10"
    )
    assert refused(lambda: net.run_picked(given, at="x")) == "at is a str, expected an array of int64"
    nothing = net.run_picked(given, at=np.zeros((2, 3, 0), int))
    assert nothing.shape == (2, 3, 0) and nothing.dtype == np.float32
    whole = net.run(given)
    np.testing.assert_array_equal(net.run_picked(given, at=np.full((2, 3, 2), 10))[..., 1], whole[..., 10])
