"""Golden cases: inputs, and what PyTorch answered to them at export, small enough to travel in the file's metadata.

They are JSON under ``rnncore.golden``; arrays in it are base64 of zlib of raw little-endian bytes, or, for inputs, the seed
that they are drawn from (:mod:`rnncore.runtime.format.drawn`).  The fingerprint of the file covers them like everything else.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.format.comparison import error, rms_error
from rnncore.runtime.format.drawn import MOST_BYTES, Drawn
from rnncore.runtime.format.limits import DEFAULT_LIMITS

GOLDEN_KEY = "rnncore.golden"
KINDS = ("whole", "ragged", "stream")
MEASURES = ("max", "rms")


@dataclass(frozen=True)
class StoredArray:
    """What is kept of one expected output: every ``every``-th number of it, in C order.

    shape: of the whole output.  values: [ceil(numbers / every)].
    """

    shape: tuple[int, ...]
    every: int
    values: Array

    @classmethod
    def of(cls, output: Array, budget_bytes: int) -> StoredArray:
        """Keep as much of ``output`` as fits, taken from all places of its last axis."""
        every = max(1, math.ceil(output.size / max(budget_bytes // output.itemsize, 1)))
        while every > 1 and output.ndim and math.gcd(every, output.shape[-1]) > 1:
            every += 1
        return cls(output.shape, every, output.ravel()[::every].copy())

    def error(self, got: Array, measure: str) -> tuple[float, float]:
        """(max absolute error, error by ``measure``) of an answer; infinite for one of another shape."""
        if got.shape != self.shape:
            return math.inf, math.inf
        got = got.ravel()[:: self.every]
        absolute, relative = error(got, self.values)
        return absolute, relative if measure == "max" else rms_error([(got, self.values)])


@dataclass(frozen=True)
class GoldenCase:
    """One question and its answer.

    kind: "whole"; "ragged", with ``lengths``, int [batch]; or "stream", one row that is fed in ``chunks`` of steps.
    inputs: whole arrays by name, with a batch axis.  outputs: what is kept of the answer, zero beyond the lengths.
    drawn: how inputs were drawn whose numbers are not stored.
    """

    kind: str
    batch: int
    time: int
    inputs: Mapping[str, Array]
    outputs: Mapping[str, StoredArray]
    lengths: tuple[int, ...] | None = None
    chunks: tuple[int, ...] | None = None
    drawn: Mapping[str, Drawn] = field(default_factory=dict)

    @property
    def detail(self) -> str:
        """Lengths or chunks, and how much of a large output is compared."""
        parts = []
        if self.lengths is not None:
            parts.append(f"lengths {list(self.lengths)}")
        if self.chunks is not None:
            parts.append(f"chunks {list(self.chunks)}")
        parts += [f"1 of {kept.every} numbers of {name}" for name, kept in self.outputs.items() if kept.every > 1]
        return ", ".join(parts)


@dataclass(frozen=True)
class Golden:
    """All golden cases of a file.

    measure: "max", the largest error as a part of the largest expected value (at least 1), or "rms", the root mean square
    of the errors as a part of that of the expected values, for int8.  tolerance: the most of that which passes.
    left_out: cases that were not kept, and why.
    """

    tolerance: float
    cases: tuple[GoldenCase, ...]
    left_out: tuple[str, ...] = ()
    measure: str = "max"

    def to_json(self) -> str:
        """JSON text; equal cases give equal text."""
        cases = [
            {
                "kind": case.kind,
                "batch": case.batch,
                "time": case.time,
                "lengths": case.lengths,
                "chunks": case.chunks,
                "inputs": {
                    name: case.drawn[name].to_data() if name in case.drawn else _packed(array)
                    for name, array in case.inputs.items()
                },
                "outputs": {
                    name: {"of": list(kept.shape), "every": kept.every, **_packed(kept.values)}
                    for name, kept in case.outputs.items()
                },
            }
            for case in self.cases
        ]
        data = {"measure": self.measure, "tolerance": self.tolerance, "cases": cases, "left_out": self.left_out}
        return json.dumps(data, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, most_bytes: int = DEFAULT_LIMITS.golden_bytes) -> Golden:
        """Read :meth:`to_json` text; raises ModelFileError when it is no such text, or has more arrays than ``most_bytes``."""
        try:
            data = json.loads(text)
            size = sum(_size_bytes(case) for case in data["cases"])
            if size > most_bytes:
                raise ModelFileError(f"the golden cases have {size} bytes, limits.golden_bytes allows {most_bytes}")
            cases = tuple(_case(case) for case in data["cases"])
            if data["measure"] not in MEASURES:
                raise ValueError(f"a measure {data['measure']!r}")
            if not math.isfinite(float(data["tolerance"])):
                raise ValueError("a tolerance that is no number")
            return cls(float(data["tolerance"]), cases, tuple(map(str, data["left_out"])), data["measure"])
        except ModelFileError:
            raise
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, zlib.error) as problem:
            raise ModelFileError(f"rnncore.golden in the file cannot be read ({problem!r}): export it again") from None


def _size_bytes(case: Mapping[str, Any]) -> int:
    """What the arrays of a case take once they are unpacked or drawn, by what it says of them."""
    arrays = [*case["inputs"].values(), *case["outputs"].values()]
    return sum(math.prod(_shape(array["shape"])) * 8 for array in arrays)


def _case(data: Mapping[str, Any]) -> GoldenCase:
    kind = str(data["kind"])
    if kind not in KINDS:
        raise ValueError(f"a case of kind {kind!r}")
    outputs = {}
    for name, kept in data["outputs"].items():
        shape, every, values = _shape(kept["of"]), int(kept["every"]), _unpacked(kept)
        if every < 1 or values.shape != (math.ceil(math.prod(shape) / every),):
            raise ValueError(f"{values.shape} numbers kept of output {name!r}")
        outputs[str(name)] = StoredArray(shape, every, values)
    drawn = {str(name): Drawn.from_data(array) for name, array in data["inputs"].items() if "seed" in array}
    return GoldenCase(
        kind,
        int(data["batch"]),
        int(data["time"]),
        {
            str(name): drawn[name].array() if name in drawn else _unpacked(array)
            for name, array in data["inputs"].items()
        },
        outputs,
        None if data["lengths"] is None else _shape(data["lengths"]),
        None if data["chunks"] is None else _shape(data["chunks"]),
        drawn,
    )


def _packed(array: Array) -> dict[str, Any]:
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    text = base64.b64encode(zlib.compress(raw, 9)).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": text}


def _unpacked(data: Mapping[str, Any]) -> Array:
    dtype, shape = np.dtype(str(data["dtype"])), _shape(data["shape"])
    if dtype.kind not in "fiub":
        raise ValueError(f"an array of {dtype}")
    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes > MOST_BYTES:
        raise ValueError(f"an array of {size_bytes} bytes")
    raw = zlib.decompressobj().decompress(base64.b64decode(data["data"], validate=True), size_bytes + 1)
    if len(raw) != size_bytes:
        raise ValueError(f"{len(raw)} bytes for shape {list(shape)} of {dtype}")
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _shape(numbers: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in numbers)
    if any(n < 0 for n in shape):
        raise ValueError(f"negative numbers in {list(shape)}")
    return shape
