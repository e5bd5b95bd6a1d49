"""What an array must be, on layouts alone: the short way, the long way, and what people hold numbers in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnncore.runtime import InputError, TensorSpec
from rnncore.runtime.format.axes import Axis, Steps
from rnncore.runtime.format.options import Option
from rnncore.runtime.tensors.array_likes import as_array, numbers_of, rows_of
from rnncore.runtime.tensors.fast_validation import FastReader
from rnncore.runtime.tensors.lengths import read_lengths
from rnncore.runtime.tensors.specs import Layout, Slot
from rnncore.runtime.tensors.validation import agreed, apparent_steps, bind_arguments, read_array, read_item
from tests.runtime.small_layouts import IDS, SPEAKER, TIME_MAJOR, X, layout, x


def refused(call: Any) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------- the short way
def test_batches_that_are_right_are_known_at_once() -> None:
    reader = FastReader(layout(X, max_steps=4))
    right = x(3, 4, 2)
    assert reader.read_batch([right]) == ({"x": right}, 3, 4)
    looked_at: list[Any] = [
        right.astype(float),
        right.tolist(),
        right[0],
        right[None],
        x(3, 5, 2),
        x(3, 4, 3),
        right[:, ::2],
        x(3, 0, 2),
        x(0, 4, 2),
        np.asfortranarray(right),
    ]
    assert [reader.read_batch([one]) for one in looked_at] == [None] * len(looked_at)
    assert reader.read_batch([]) is reader.read_batch([right, right]) is None
    ids = FastReader(layout(IDS))
    assert ids.read_batch([np.array([[1, 8]])]) is not None
    assert ids.read_batch([np.array([[1, 9]])]) is ids.read_batch([np.array([[0, 8]])]) is None


@pytest.mark.parametrize(
    "known",
    [
        layout(X, stride=2),
        layout(X, axes=(Axis("time", 1),)),
        layout(X, TensorSpec("g", "float32", ("batch",)), options=(Option("g", 1.0),)),
        layout(TensorSpec("x", "float32", ("batch", "time", "width"))),
        layout(SPEAKER, outputs=(SPEAKER,)),
        layout(TensorSpec("x", "float32", ("batch", 2, "time"))),
        layout(X, TensorSpec("h", "float32", ("batch", Steps("time", 2)))),
    ],
)
def test_models_that_need_a_closer_look_always_get_it(known: Layout) -> None:
    reader = FastReader(known)
    chunks = [x(*(2 if isinstance(size, str) else size for size in slot.item_shape)) for slot in known.inputs]
    assert reader.read(chunks) is reader.read_copies(chunks) is reader.steps_alike(chunks) is None
    assert reader.read_batch([x(2, 2, 2)]) is None


def test_chunks_that_are_right_are_known_at_once() -> None:
    reader = FastReader(layout(X, SPEAKER, max_steps=4))
    right, speaker = x(4, 2), x(3)
    assert reader.read((right, speaker)) == ({"x": right, "speaker": speaker}, 4)
    nothing = reader.read((right[:0], speaker))
    assert nothing is not None and nothing[1] == 0
    for wrong in (
        (right,),
        (right, speaker, speaker),
        (right, x(4)),
        (right, x(1, 3)),
        (x(4, 3), speaker),
        (x(5, 2), speaker),
        (x(1, 4, 2), speaker),
        (right.astype(float), speaker),
        (right, speaker.tolist()),
    ):
        assert reader.read(wrong) is reader.read_copies(wrong) is None
    read = reader.read_copies((right, speaker))
    assert read is not None and read[1] == 4
    assert not any(np.shares_memory(copy, own) for copy, own in zip(read[0].values(), (right, speaker), strict=True))
    two = FastReader(layout(X, TensorSpec("z", "float32", ("batch", "time", 1))))
    assert two.read((x(3, 2), x(2, 1))) is None and two.read((x(3, 2), x(3, 1))) is not None
    alone = FastReader(layout(X))
    copied = alone.read_copies((right,))
    assert copied is not None and copied[1] == 4 and not np.shares_memory(copied[0]["x"], right)
    for wrong in ((right.astype(float),), (x(4, 3),), (x(2),), (right.tolist(),), (x(1, 4, 2),)):
        assert alone.read_copies(wrong) is None
    ids = FastReader(layout(IDS))
    assert ids.read_copies((np.array([1, 8]),)) is not None and ids.read_copies((np.array([1, 9]),)) is None
    assert FastReader(layout(X, max_steps=3)).read_copies((right,)) is None


def test_chunks_of_many_streams_are_alike_or_not() -> None:
    reader, ids = FastReader(layout(X)), FastReader(layout(IDS))
    assert reader.steps_alike([x(3, 2)] * 4) == 3 and reader.steps_alike([x(0, 2)] * 2) == 0
    for other in (x(2, 2), x(3, 2).astype(float), x(3, 2).tolist(), x(3, 3)):
        assert reader.steps_alike([x(3, 2), other]) is None
    assert ids.steps_alike([np.array([1, 8]), np.array([2, 3])]) == 2
    assert ids.steps_alike([np.array([1, 8]), np.array([2, 9])]) is None
    assert ids.steps_alike([np.zeros(0, int)] * 2) == 0


# --------------------------------------------------------------------------------------------------------- the long way
def read(value: Any, spec: TensorSpec = X) -> np.ndarray | str:
    problems: list[str] = []
    slot = Slot.of(spec)
    found = read_array(value, slot, slot.shape, "it", problems)
    if found is None:
        (problem,) = problems
        return problem
    assert not problems and found.dtype == slot.dtype and found.flags.c_contiguous
    return found


@pytest.mark.parametrize(
    ("value", "spec", "says"),
    [
        (x(3, 2), X, "has shape [3, 2], the model expects [batch, time, 2]: add a batch axis, x[None]"),
        (x(3, 2), TIME_MAJOR, "has shape [3, 2], the model expects [time, batch, 2]: add a time axis, x[None]"),
        (x(1, 1, 3, 2), X, "has shape [1, 1, 3, 2], the model expects [batch, time, 2]"),
        (x(1, 1, 3, 2), TIME_MAJOR, "has shape [1, 1, 3, 2], the model expects [time, batch, 2]: hand in one sequence, "
         "without a batch axis"),
        (x(2), X, "has shape [2], the model expects [batch, time, 2]"),
        (x(1, 3, 3), X, "has 3 features, the model expects 2"),
        (x(1, 3, 4), TensorSpec("w", "float32", ("batch", 2, "time")), "has shape [1, 3, 4], the model expects [batch, 2, time]"),
        (x(3, 3), TensorSpec("w", "float32", ("batch", 2)), "has 3 features, the model expects 2"),
        (x(1, 3, 2, dtype="int32"), X, "has dtype int32, the model expects floating-point numbers (float32): use "
         ".astype('float32') if that is what you mean"),
        (x(1, 3), IDS, "has dtype float32, the model expects integers (int64): use .astype('int64') if that is what you mean"),
        (x(1, 3, 2, dtype=">f4"), X, "has dtype >f4 in foreign byte order: use .astype('float32')"),
        (np.array([[300]]), TensorSpec("b", "int8", ("batch", "time")), "holds integers from 300 to 300, which do not fit int8"),
        (np.array([[-129, 0]]), TensorSpec("b", "int8", ("batch", "time")),
         "holds integers from -129 to 0, which do not fit int8"),
        (np.full((1, 1, 2), 1e39), X, "holds numbers too large for float32"),
        (np.array([[1, 2], [0, 8]]), IDS, "holds the id 0 at [1, 0], the model knows 1 to 8"),
        (np.array([[1, 9]], "int32"), IDS, "holds the id 9 at [0, 1], the model knows 1 to 8"),
        ("text", X, "is a str, expected an array of float32"),
        (object(), X, "is a object, of which NumPy makes no array"),
        (iter([1]), X, "is a list_iterator, expected an array of float32: make it a list first"),
        (None, IDS, "is a NoneType, expected an array of int64"),
    ],
)  # fmt: skip
def test_each_array_that_is_wrong(value: Any, spec: TensorSpec, says: str) -> None:
    assert read(value, spec) == f"it {says}"


def test_arrays_that_lose_no_meaning_are_converted() -> None:
    wanted = x(1, 3, 2)
    for same in (
        wanted,
        wanted.astype(float),
        wanted.astype("f2"),
        np.asfortranarray(wanted),
        wanted.tolist(),
        wanted[..., ::-1][..., ::-1],
    ):
        np.testing.assert_array_equal(read(same), wanted)
    assert read(wanted) is wanted, "no copy of what is right"
    for kind in ("int8", "uint64", "int32"):
        np.testing.assert_array_equal(read(np.array([[1, 8]], kind), IDS), [[1, 8]])
    tiny = TensorSpec("b", "int8", ("batch", "time"))
    np.testing.assert_array_equal(read(np.array([[-128, 127]]), tiny), [[-128, 127]])
    assert read(np.full((1, 1, 2), 1e-50)).max() == 0, "too small a number is nought"  # type: ignore[union-attr]
    assert read([[]], IDS).shape == (1, 0) and read(np.zeros((2, 0), int), IDS).shape == (2, 0)  # type: ignore[union-attr]
    chunked = Slot.of(X, chunk=2)
    problems: list[str] = []
    assert read_array(x(1, 6), chunked, ("batch", "time", 2), "it", problems).shape == (1, 3, 2)  # type: ignore[union-attr]
    assert read_array(x(1, 5), chunked, ("batch", "time", 2), "it", problems) is None
    assert problems == ["it has 5 samples, the model takes chunks of 2: hand in whole ones"]


def test_arguments_are_named() -> None:
    slots = layout(X, SPEAKER, TensorSpec("g", "float32", ("batch",)), options=(Option("g", 1.0),)).inputs
    assert bind_arguments(slots, (1, 2, 3), {}) == {"x": 1, "speaker": 2, "g": 3}
    assert bind_arguments(slots, (1,), {"speaker": 2}) == bind_arguments(slots, ({"x": 1, "speaker": 2},), {})
    assert refused(lambda: bind_arguments(slots, (1, 2, 3, 4), {"x": 5, "q": 6})) == (
        "3 problems:\n  - 4 inputs given, expected x, speaker, g\n  - input 'x' is given twice, by position and by name\n"
        "  - there is no input 'q', expected x, speaker, g"
    )
    assert refused(lambda: bind_arguments(slots, (), {})) == (
        "2 problems:\n  - input 'x' is missing, expected x, speaker, g\n  - input 'speaker' is missing, expected x, speaker, g"
    )


def test_one_sequence_is_read_with_the_place_where_it_stands() -> None:
    known = layout(X, TensorSpec("z", "float32", ("batch", "time", 1)), max_steps=4, axes=(Axis("time", 2),))
    problems: list[str] = []
    arrays, steps = read_item(known, {"x": x(3, 2), "z": x(3, 1)}, ", item 5", problems)
    assert steps == 3 and not problems and arrays["z"].shape == (3, 1)
    read_item(known, {"x": x(5, 2), "z": x(3, 3)}, ", item 5", problems)
    assert problems[:2] == [
        "5 steps, item 5, this model was loaded with max_steps=4: use shorter parts",
        "input 'z', item 5 has 3 features, the model expects 1",
    ]
    problems.clear()
    read_item(known, {"x": x(1, 2), "z": x(1, 1)}, ", item 5", problems)
    assert problems == ["input 'x', item 5 has size 1 along axis 'time', expected at least 2"]
    problems.clear()
    read_item(known, {"x": x(1, 2), "z": x(1, 1)}, "", problems, whole=False)
    assert problems == [], "a chunk may be shorter than a sequence"


def test_steps_and_sizes_before_anything_is_read() -> None:
    assert [apparent_steps(value, 0) for value in (x(3, 2), [1, 2], (1,), "text", None, x())] == [3, 2, 1, 0, 0, 0]
    assert apparent_steps(x(3, 2), 1) == 2 and apparent_steps([[1]], 1) == 0 and apparent_steps(x(3, 2), None) == 0
    problems: list[str] = []
    assert agreed({"a": 3, "b": 3}, "steps", problems) == 3 and agreed({}, "steps", problems) == 0 and not problems
    assert agreed({"a": 3, "b": 4}, "steps", problems) == 3
    assert problems == ["inputs differ in their number of steps: 'a' has 3, 'b' has 4"]


def test_lengths_are_one_for_each_row() -> None:
    found = read_lengths(np.array([0, 3], "uint8"), 2, 3)
    assert found.tolist() == [0, 3] and found.dtype == np.int64
    assert refused(lambda: read_lengths([9] * 7, 7, 3)).splitlines()[-2:] == [
        "  - lengths[4] is 9, expected 0 to 3",
        "  - and 2 rows more",
    ]
    assert refused(lambda: read_lengths([-1] * 5, 5, 3)).splitlines()[-1] == "  - lengths[4] is -1, expected 0 to 3"
    assert (
        refused(lambda: read_lengths([], 2, 3)) == "lengths have dtype float64, expected integers: use .astype('int64')"
    )
    assert refused(lambda: read_lengths([1.5, 2], 2, 3)) == (
        "lengths have dtype float64 (1.5 in row 0), expected integers: use .astype('int64')"
    )
    assert refused(lambda: read_lengths(None, 2, 3)) == "lengths: is a NoneType, expected an array"


# -------------------------------------------------------------------------------------------- what people hold numbers in
class Shell:
    """As a scalar of Arrow."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def as_py(self) -> Any:
        return self.value


class Column:
    """As a column of Arrow, polars or pandas that says how many of its values are missing."""

    def __init__(self, values: list[Any], nulls: Any = 0) -> None:
        self.values, self.null_count = values, nulls

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.values)

    def to_pylist(self) -> list[Any]:
        return self.values


class Foreign:
    """As an array of another library that has a common protocol only, on some device."""

    def __init__(self, device: int) -> None:
        self.device = device

    def __dlpack__(self, **_: Any) -> Any:
        return np.arange(3).__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


def test_other_holders_are_read_by_what_they_say_of_themselves() -> None:
    for holder in (Shell([1, 2]), [Shell(1), Shell(2)], Column([1, 2]), np.array([1, 2], object), (1, 2)):
        assert as_array(holder).tolist() == [1, 2], holder
    assert as_array([[Shell(1)], np.array([2])]).tolist() == [[1], [2]]
    assert as_array(Foreign(1)).tolist() == [0, 1, 2]
    assert as_array(np.array([[1, 2], [3, 4]], object)).shape == (2, 2)
    assert as_array(np.array([Shell(1), Shell(2)], object)).tolist() == [1, 2]
    assert as_array(3).shape == () and as_array(np.float32(3)).dtype == np.float32
    assert as_array([True]).dtype == bool and as_array([]).shape == (0,)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Column([1], 1), "is a Column that lacks 1 values: fill them in or leave their rows out"),
        (Column([1], lambda: [1, 2]), "is a Column that lacks 3 values: fill them in or leave their rows out"),
        (Foreign(2), "is a Foreign in the memory of a device: move it to the processor first"),
        ([1, None], "is a list that holds nothing at [1], expected numbers"),
        ([[1], [object()]], "is a list that holds a object at [1, 0], expected numbers"),
        (np.array([1, "a"], object), "is a ndarray that holds a str at [1], expected numbers"),
        ([2**70, 1], "is a list of numbers that have no common type, such as integers beyond 64 bits"),
        ({1, 2}, "is a set, expected an array"),
        (b"ab", "is a bytes, expected an array"),
        (np.ma.masked_array([1]), "is a masked array, and what is masked has no meaning here: fill it in, x.filled(...)"),
    ],
)  # fmt: skip
def test_what_numpy_would_misread_is_named(value: Any, says: str) -> None:
    assert refused(lambda: as_array(value)) == says
    assert refused(lambda: numbers_of(value, "weights")) == f"weights {says}"


def test_real_numbers_are_float64_or_named() -> None:
    found = numbers_of([1, True], "it")
    assert found.dtype == np.float64 and found.tolist() == [1, 1]
    own = np.zeros(2)
    assert numbers_of(own, "it") is own
    assert refused(lambda: numbers_of(["a"], "it")) == "it holds <U1, expected real numbers"
    assert refused(lambda: numbers_of([1j], "it")) == "it holds complex128, expected real numbers"
    assert refused(lambda: numbers_of([[1], [1, 2]], "it")).startswith("it cannot be made an array: ")


def test_columns_of_sequences_have_rows() -> None:
    assert rows_of([1, 2]) == [1, 2] and rows_of((1,)) == [1]
    assert (
        rows_of(x(2, 2))
        is rows_of(5)
        is rows_of(Column([1, 2]))
        is rows_of(Column([]))
        is rows_of(Column(["a"]))
        is None
    )
    assert rows_of(Column([[1], [2, 3]])) == [[1], [2, 3]]
    ragged = np.empty(2, object)
    ragged[:] = [np.arange(2), np.arange(3)]
    rows = rows_of(ragged)
    assert rows is not None and [len(row) for row in rows] == [2, 3]
