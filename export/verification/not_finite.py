"""NaN and infinities: they appear where PyTorch shows them, and in no other row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from rnncore.export.verification.bench import Bench
from rnncore.export.verification.cases import Case
from rnncore.export.verification.reference import Array
from rnncore.runtime import Model
from rnncore.runtime.errors import InputError
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.tensors.specs import Slot

SIZE = (2, 9)  # (batch, time)
AT = 3  # the step of row 0 that is not finite
VALUES = {"NaN": float("nan"), "infinity": float("inf")}


def not_finite_cases(bench: Bench, model: Model, remarks: list[str]) -> Iterator[Case]:
    """One number of row 0 is NaN, or infinite.

    A row that answers differently because of another row's number is a failed case.  A number that is hidden, where PyTorch
    shows NaN, is a remark: the operator of onnxruntime does that, and every finite answer is right.
    """
    clean = bench.draw(*bench.near(*SIZE))
    if bench.reference.failure(clean):
        return
    for name, tensor in bench.named(clean):
        axes = next(i.axes for i in bench.example.inputs if i.name == name)
        if tensor.is_floating_point() and BATCH in axes:
            for what, value in VALUES.items():
                spoiled = [_spoiled(t, axes, value) if t is tensor else t for t in clean]
                yield from _one(bench, model, (clean, spoiled), f"{what} in '{name}'", remarks)


def _one(
    bench: Bench, model: Model, inputs: tuple[list[Tensor], list[Tensor]], what: str, remarks: list[str]
) -> Iterator[Case]:
    clean, tensors = inputs
    if bench.reference.failure(tensors):
        return
    expected = bench.reference(tensors)
    try:
        got = bench.run(model, tensors)
        before = bench.run(model, clean)
    except InputError:
        remarks.append(f"{what} is refused by the file, PyTorch answers it")
        return
    hidden = [
        port.name
        for port, g, e in zip(model.signature.outputs, got, expected, strict=True)
        if not np.array_equal(_kinds(g), _kinds(e))
    ]
    if hidden:
        remarks.append(f"{what} does not show in '{hidden[0]}' as it does in PyTorch: check inputs before")
    moved = [
        float(np.abs(np.nan_to_num(g, nan=np.inf) - b).max(initial=0.0))
        for g, b in zip(_other_rows(bench, model, got), _other_rows(bench, model, before), strict=True)
    ]
    # PyTorch itself may mix rows; then this is what it does, and the rows of a batch have failed before.
    theirs = [np.isfinite(e).all() for e in _other_rows(bench, model, expected)]
    worst = max((m for m, finite in zip(moved, theirs, strict=True) if finite), default=0.0)
    yield Case("rows", *SIZE, f"{what} of row 0, seen from row 1", worst, worst, worst <= bench.tolerance)


def _spoiled(tensor: Tensor, axes: Sequence[str | None], value: float) -> Tensor:
    """The same with ``value`` at one place of row 0."""
    spoiled = tensor.clone()
    place = [
        0 if axis == BATCH else min(AT if axis == TIME else 0, n - 1)
        for axis, n in zip(axes, tensor.shape, strict=True)
    ]
    spoiled[tuple(place)] = value
    return spoiled


def _kinds(array: Array) -> Array:
    """0 where a number is finite, 1 for NaN, 2 and 3 for the infinities."""
    if array.dtype.kind != "f":
        return np.zeros(array.shape, np.int8)
    return np.select([np.isnan(array), np.isposinf(array), np.isneginf(array)], [1, 2, 3], 0)


def _other_rows(bench: Bench, model: Model, outputs: list[Array]) -> list[Array]:
    pairs = zip(model.signature.outputs, outputs, strict=True)
    rows = [Slot.of(port).unfolded(value, *bench.near(*SIZE)) for port, value in pairs]
    slots = [Slot.of(port) for port in model.signature.outputs]
    return [
        np.take(value, [1], axis=slot.batch_axis).astype(np.float64) for slot, value in zip(slots, rows, strict=True)
    ]
