"""Running sums of exponentials as nodes: those of NumPy, near and far, with infinities, and where rows end."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

import rnncore
from rnncore.export.graph.builder import Builder
from rnncore.export.lowering.log_sums import emit_log_sums, is_log_sum
from tests.export.small_graphs import run
from tests.tolerances import fixed

SIZE = 3


def written(kind: ir.DataType, lengths: bool) -> ir.Model:
    main = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="main")
    builder = Builder("sum", main)

    def given(name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
        main.inputs.append(ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape)))
        return main.inputs[-1]

    z, start = given("z", kind, "batch", "time", SIZE), given("start", kind, "batch", SIZE)
    rows = given("lengths", ir.DataType.INT64, "batch") if lengths else None
    valid = given("valid", ir.DataType.BOOL, "batch", "time", 1) if lengths else None
    recurrence = SimpleNamespace(dtype=kind, states=[start], z=z)
    main.outputs.extend(emit_log_sums(builder, recurrence, rows, valid))  # type: ignore[arg-type]
    main.extend(builder.nodes)
    for output, shape in zip(main.outputs, (["batch", "time", SIZE], ["batch", SIZE]), strict=True):
        output.type, output.shape = ir.TensorType(kind), ir.Shape(shape)
    return ir.Model(main, ir_version=10)


@pytest.fixture(scope="module", params=[np.float32, np.float64])
def both(request: pytest.FixtureRequest) -> tuple[type, ir.Model, ir.Model]:
    kind = ir.DataType.from_numpy(np.dtype(request.param))
    return request.param, written(kind, False), written(kind, True)


def sums(start: np.ndarray, z: np.ndarray) -> np.ndarray:
    """[batch, time, size], computed in double precision."""
    with np.errstate(invalid="ignore", over="ignore"):
        wide = np.concatenate([start[:, None], z], 1).astype(np.float64)
        found: np.ndarray = np.logaddexp.accumulate(wide, 1)[:, 1:].astype(z.dtype)
    return found


def close(have: np.ndarray, want: np.ndarray) -> None:
    bound = fixed("float64" if have.dtype == np.float64 else "float32")
    assert have.dtype == want.dtype
    np.testing.assert_allclose(have, want, rtol=bound, atol=bound)


@pytest.mark.parametrize("time", [1, 2, 3, 8, 9, 70])
@pytest.mark.parametrize("scale", [1.0, 40.0, 600.0])
def test_near_and_far_numbers(both: tuple[type, ir.Model, ir.Model], time: int, scale: float) -> None:
    kind, whole, masked = both
    random = np.random.default_rng(time)
    z = (scale * random.standard_normal((3, time, SIZE))).astype(kind)
    start = (scale * random.standard_normal((3, SIZE))).astype(kind)
    wanted = sums(start, z)
    y, end = run(whole, z=z, start=start)
    close(y, wanted)
    close(end, wanted[:, -1])
    lengths = np.array([time, 0, (time + 1) // 2])
    valid = np.arange(time)[None, :, None] < lengths[:, None, None]
    y, end = run(masked, z=z, start=start, lengths=lengths, valid=valid)
    close(y, np.where(valid, wanted, kind(0)))
    every = np.concatenate([start[:, None], wanted], 1)
    close(end, every[np.arange(3), lengths])


UNUSUAL = {
    "nothing at first": ([-np.inf] * 3, [-np.inf, 1.0, 2.0, -np.inf]),
    "nothing at all": ([-np.inf] * 3, [-np.inf] * 4),
    "without bounds": ([0.0] * 3, [1.0, np.inf, 2.0, -np.inf]),
    "without bounds, at first": ([np.inf] * 3, [1.0, 2.0, 3.0, 4.0]),
    "rising far": ([-600.0] * 3, [-600.0, 0.0, 600.0, 1200.0]),
    "falling far": ([1200.0] * 3, [600.0, 0.0, -600.0, -1200.0]),
    "just within": ([0.0] * 3, [-649.0, -650.0, -651.0, 0.0]),
    "very large": ([0.0] * 3, [1e38, -1e38, 1e38, 0.0]),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_numbers(both: tuple[type, ir.Model, ir.Model], kind: str) -> None:
    dtype, whole, _ = both
    first, steps = UNUSUAL[kind]
    start = np.array([first], dtype)
    z = np.repeat(np.array(steps, dtype)[None, :, None], SIZE, 2)
    z[0, :, 1] = np.arange(4)  # a column of ordinary numbers beside them
    y, end = run(whole, z=z, start=start)
    least = np.finfo(dtype).min
    wanted = np.maximum(sums(start, z), least)  # the least number stands for the log of nothing
    close(np.maximum(y, least), wanted)
    close(np.maximum(end, least), wanted[:, -1])


def test_nan_goes_on_to_the_end_of_its_column(both: tuple[type, ir.Model, ir.Model]) -> None:
    dtype, whole, _ = both
    z, start = np.zeros((2, 5, SIZE), dtype), np.zeros((2, SIZE), dtype)
    z[0, 2, 1] = np.nan
    y, end = run(whole, z=z, start=start)
    close(y, sums(start, z))
    assert np.isnan(end).tolist() == [[False, True, False], [False] * 3]


class Like(rnncore.Cell):
    """Nearly such a sum, or just such a one."""

    def __init__(self, kind: str, size: int = SIZE) -> None:
        super().__init__(SIZE, 4 if kind == "wider" else SIZE, {"h": size})
        self.kind = kind

    def step(self, z: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        y = torch.logaddexp(z, h)
        if self.kind not in ("no least", "nothing is nothing"):
            y = y.clamp(min=torch.finfo(z.dtype).min)
        if self.kind == "far only":
            y = torch.where((z - h).abs() < 20, y + 0.1, y)
        if self.kind == "near only":
            y = torch.where((z - h).abs() > 20, y + 0.1, y)
        if self.kind == "of nothing":
            y = torch.where(torch.isinf(z), z, y)
        if self.kind == "nothing is nothing":
            y = torch.where(torch.isinf(z) & (h < -1e38), z, y.clamp(min=torch.finfo(z.dtype).min))
        return (y + (torch.arange(SIZE) == 2) * 0.1 if self.kind == "one column" else y), y


@pytest.mark.parametrize(
    "kind", ["sum", "far only", "near only", "of nothing", "nothing is nothing", "one column", "wider"]
)
def test_only_such_sums_are_taken_for_them(kind: str) -> None:
    assert is_log_sum(Like(kind)) == (kind == "sum")
    assert not is_log_sum(Like("sum", SIZE + 1))
