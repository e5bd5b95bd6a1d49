"""Golden cases as the text that travels in a file: what is written is read again, and nothing else is."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.format.drawn import Drawn
from rnncore.runtime.format.golden import Golden, GoldenCase, StoredArray

shapes = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
values = st.sampled_from(["float32", "float64", "int64", "int8", "bool", "uint8"]).flatmap(
    lambda dtype: arrays.arrays(dtype, shapes)
)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(values, values, st.integers(1, 200), st.sampled_from([None, (3, 0)]), st.sampled_from([None, (2, 1)]))
def test_what_is_written_is_read_again(
    x: np.ndarray, y: np.ndarray, budget: int, lengths: tuple[int, ...] | None, chunks: tuple[int, ...] | None
) -> None:
    drawn = Drawn(3, "float32", (2, 3), -1.0, 1.0)
    kept = StoredArray.of(y, budget)
    case = GoldenCase("stream", 2, 3, {"x": x, "z": drawn.array()}, {"y": kept}, lengths, chunks, {"z": drawn})
    golden = Golden(1e-4, (case,), ("large: 1 GB",), "rms")
    text = golden.to_json()
    back = Golden.from_json(text)
    (one,) = back.cases
    assert back.to_json() == text and len(text) < 1500 and " " not in text.replace("large: 1 GB", "")
    assert (back.tolerance, back.left_out, back.measure) == (1e-4, ("large: 1 GB",), "rms")
    assert (one.kind, one.batch, one.time, one.lengths, one.chunks) == ("stream", 2, 3, lengths, chunks)
    assert list(one.inputs) == ["x", "z"] and same(one.inputs["x"], x) and same(one.inputs["z"], drawn.array())
    assert one.drawn == {"z": drawn}
    assert (one.outputs["y"].shape, one.outputs["y"].every) == (y.shape, kept.every)
    assert same(one.outputs["y"].values, y.ravel()[:: kept.every])


@example(np.zeros(3, np.float32), 6)  # less than two numbers, more than one
@given(arrays.arrays("float32", shapes, elements=st.floats(-9, 9, width=32)), st.integers(1, 300))
def test_what_is_kept_fits_and_comes_from_all_places(y: np.ndarray, budget: int) -> None:
    kept = StoredArray.of(y, budget)
    assert kept.values.nbytes <= max(budget, 4) and kept.values.flags.owndata
    assert kept.every == 1 or y.nbytes > budget
    if y.size and kept.every > 1 and kept.values.size >= y.shape[-1]:
        assert {place % y.shape[-1] for place in range(0, y.size, kept.every)} == set(range(y.shape[-1]))
    assert kept.error(y, "max") == (0, 0) and kept.error(y, "rms") == (0, 0)
    assert kept.error(y[None], "max") == (np.inf, np.inf)


def test_the_error_is_that_of_the_kept_numbers() -> None:
    y = np.array([[2.0, 4.0], [8.0, 2.0]], np.float32)
    kept = StoredArray((2, 2), 3, np.array([2.0, 2.0], np.float32))
    assert kept.error(y, "max") == (0.0, 0.0)
    y[1, 1] = 1.0
    assert kept.error(y, "max") == (1.0, 0.5) and kept.error(y, "rms") == (1.0, np.sqrt(1 / 8))
    y[0, 1] = 99.0  # is not kept
    assert kept.error(y, "max") == (1.0, 0.5)


def test_details_say_what_is_special() -> None:
    whole = {"y": StoredArray((4,), 1, np.zeros(4))}
    part = {"y": StoredArray((4,), 2, np.zeros(2))}
    assert GoldenCase("whole", 1, 4, {}, whole).detail == ""
    assert GoldenCase("ragged", 2, 4, {}, part, lengths=(3, 1)).detail == "lengths [3, 1], 1 of 2 numbers of y"
    assert GoldenCase("stream", 1, 4, {}, whole, chunks=(2, 2)).detail == "chunks [2, 2]"


def packed(raw: bytes, dtype: str, shape: list[Any]) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data": base64.b64encode(zlib.compress(raw)).decode()}


def right() -> dict[str, Any]:
    case = {
        "kind": "whole",
        "batch": 1,
        "time": 2,
        "lengths": None,
        "chunks": None,
        "inputs": {"x": packed(b"\1\2", "int8", [1, 2]), "z": Drawn(3, "int64", (2,), 0, 9).to_data()},
        "outputs": {"y": {"of": [3], "every": 2, **packed(b"\3\4", "uint8", [2])}},
    }
    return {"measure": "max", "tolerance": 1e-4, "cases": [case], "left_out": []}


def test_the_text_that_the_faults_are_planted_in_is_right() -> None:
    (case,) = Golden.from_json(json.dumps(right())).cases
    assert case.inputs["x"].tolist() == [[1, 2]] and case.outputs["y"].values.tolist() == [3, 4]


FAULTS: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "kind": (("cases", 0, "kind"), "half", "a case of kind 'half'"),
    "measure": (("measure",), "mean", "a measure 'mean'"),
    "tolerance": (("tolerance",), float("nan"), "a tolerance that is no number"),
    "tolerance without end": (("tolerance",), float("inf"), "a tolerance that is no number"),
    "no tolerance": (("tolerance",), None, "TypeError"),
    "cases": (("cases",), 3, "TypeError"),
    "case": (("cases", 0), [], "TypeError"),
    "lengths": (("cases", 0, "lengths"), [2, -1], r"negative numbers in \[2, -1\]"),
    "chunks": (("cases", 0, "chunks"), [-2], r"negative numbers in \[-2\]"),
    "left out": (("left_out",), 7, "TypeError"),
    "every": (("cases", 0, "outputs", "y", "every"), 0, r"\(2,\) numbers kept of output 'y'"),
    "kept": (("cases", 0, "outputs", "y", "of"), [5], r"\(2,\) numbers kept of output 'y'"),
    "dtype": (("cases", 0, "inputs", "x"), packed(b"", "object", [0]), "an array of object"),
    "complex": (("cases", 0, "inputs", "x"), packed(b"", "complex64", [0]), "an array of complex64"),
    "short": (("cases", 0, "inputs", "x"), packed(b"\1", "int8", [2]), r"1 bytes for shape \[2\] of int8"),
    "long": (("cases", 0, "inputs", "x"), packed(b"\1" * 9, "int8", [2]), r"3 bytes for shape \[2\] of int8"),
    "huge": (
        ("cases", 0, "inputs", "x"),
        packed(b"", "float64", [1 << 21, 2]),
        "an array of 33554432 bytes",
    ),
    "base64": (("cases", 0, "inputs", "x", "data"), "a b=", "Error"),
    "zlib": (("cases", 0, "inputs", "x", "data"), "AAAA", "error"),
    "seed": (("cases", 0, "inputs", "z", "seed"), -1, r"numbers of int64 and shape \[2\] drawn from seed -1"),
    "drawn dtype": (("cases", 0, "inputs", "z", "dtype"), "complex64", r"numbers of complex64 and shape \[2\]"),
    "bounds": (("cases", 0, "inputs", "z", "low"), 10, r"whole numbers from 10\.0 to 9\.0"),
    "large bounds": (("cases", 0, "inputs", "z", "high"), 2.0**53 + 2, r"whole numbers from 0\.0 to 9007199254740994"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_the_text_is_said(fault: str) -> None:
    (*path, last), value, message = FAULTS[fault]
    data: Any = right()
    place = data
    for key in path:
        place = place[key]
    place[last] = value
    with pytest.raises(
        ModelFileError, match=f"^rnncore.golden in the file cannot be read .*{message}.*: export it again$"
    ):
        Golden.from_json(json.dumps(data))


def test_the_limit_counts_eight_bytes_a_number() -> None:
    text = json.dumps(right())  # 2 numbers of x, 2 of z, 2 kept of y
    assert len(Golden.from_json(text, 48).cases) == 1
    with pytest.raises(ModelFileError, match=r"the golden cases have 48 bytes, limits.golden_bytes allows 47"):
        Golden.from_json(text, 47)


def test_integers_that_float64_tells_apart_may_be_drawn() -> None:
    widest = Drawn(1, "int64", (3,), -(2.0**53), 2.0**53)
    assert Drawn.from_data(widest.to_data()) == widest
    floats = Drawn(1, "float64", (3,), -1e300, 1e300)
    assert Drawn.from_data(floats.to_data()) == floats
