"""How values lie in the rows of a rolled loop, and what torch's cells and scans compute, written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export.tracing.rolling.cell import Packing, RolledCell, StepLayout
from rnncore.export.tracing.rolling.cells import CELLS
from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.forward import forward_of
from rnncore.export.tracing.rolling.own_functions import forward_only
from rnncore.export.tracing.rolling.scans import Scan, as_loop, find_scan
from tests.tolerances import fixed

F32, F64, I64 = torch.float32, torch.float64, torch.int64
CLOSE = {"rtol": 0, "atol": fixed("float32 same steps")}


def drawn(*shape: int, dtype: torch.dtype = F32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=F64).to(dtype)


# ---------------------------------------------------------------------------------------------------------------- rows
@st.composite
def packings(draw: st.DrawFn) -> Packing:
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
    axis = draw(st.one_of(st.none(), st.integers(0, len(shape))))
    return Packing(shape, axis, draw(st.sampled_from([F32, F64, I64, torch.bool])))


@given(packings(), st.integers(1, 3), st.integers(1, 3))
def test_values_come_back_from_their_rows(packing: Packing, batch: int, time: int) -> None:
    shape = list(packing.shape)
    if packing.batch_axis is not None:
        shape.insert(packing.batch_axis, batch)
    value = (drawn(time, *shape) * 3).to(packing.dtype)
    one, like = value[0], F64
    rows = packing.rows(one, batch, like)
    assert rows.shape == (batch, *packing.shape) and rows.dtype == like
    assert packing.value(rows).dtype == packing.dtype and torch.equal(packing.value(rows), one)
    packed = packing.packed(value, batch, like)
    assert packed.shape == (batch, time, packing.size) and packed.dtype == like
    assert torch.equal(packing.unpacked(packed), value) and packing.unpacked(packed).dtype == packing.dtype
    assert torch.equal(packing.one(packed[:, 0]), one)
    for b in range(batch):
        own = value if packing.batch_axis is None else value.select(packing.batch_axis + 1, b)
        assert torch.equal(packed[b], own.flatten(1).to(like) if packing.shape else own[:, None].to(like))


def test_free_axes_are_as_long_as_the_inputs_make_them() -> None:
    packing = Packing((5, 6, 7), 0, F32, ((1, Formula(((2, ("time",)),))),))
    assert (
        packing.size == 210 and packing.at({"time": 4}).shape == (5, 8, 7) and packing.at({"time": 4}).batch_axis == 0
    )
    assert Packing((), None, F32).size == 1


def rolled_cell(**settings: Any) -> RolledCell:
    """Reads a number, a row of 3 and a column [2, batch]; carries a row of 3 and a number; gives a matrix and a number."""

    def run(reads: Any, states: Any, captured: Any, weights: Any) -> tuple[list[Tensor], list[Tensor]]:
        n, row, column = reads
        h, count = states
        new = h + row * weights[0] + column.T.sum(1, keepdim=True) + (captured[0] if captured else 0)
        return [new[:, :, None] * n, count + n], [new, count * 2 + column[0]]

    layout = StepLayout(
        [Packing((), None, I64), Packing((3,), 0, F32), Packing((2,), 1, F32)],
        [Packing((3, 1), 0, F32), Packing((), 0, F32)],
        {"h": Packing((3,), 0, F32), "count": Packing((), 0, F32)},
        F32,
    )
    starts = [torch.tensor([1.0, 2, 3]), torch.tensor([5.0])]
    defaults: dict[str, Any] = {"starts": starts, "captured": [], "weights": [nn.Parameter(torch.tensor(2.0))]}
    return RolledCell(run, layout, **{**defaults, **settings})


def test_a_step_is_a_cell() -> None:
    cell = rolled_cell()
    assert (cell.input_size, cell.output_size, dict(cell.state_sizes)) == (6, 4, {"h": 3, "count": 1})
    assert not cell.is_free and cell.width is None and cell.free_state_axes == [(), ()] and cell.captured == ()
    assert [name for name, _ in cell.named_parameters()] == ["weight_0"] and not list(cell.buffers())
    z = torch.tensor([[2.0, 1, 1, 1, 3, 4], [2, 0, 1, 2, 5, 6]])
    states = cell.initial_state(2, z)
    assert [s.tolist() for s in states] == [[[1, 2, 3]] * 2, [[5]] * 2] and states[0].dtype == F32
    assert cell.initial_state(2, z.double())[0].dtype == F64
    y, h, count = cell.step(z, *states)
    assert h.tolist() == [[10, 11, 12], [12, 15, 18]] and count.tolist() == [[13], [15]]
    assert y.tolist() == [[20, 22, 24, 7], [24, 30, 36, 7]]
    y, h, _ = cell.step(z, *states, torch.full((2, 3), 100.0))
    assert h.tolist() == [[110, 111, 112], [112, 115, 118]], "captured values stand behind the states"
    cell.captured = (torch.full((2, 3), 100.0),)
    assert torch.equal(cell.step(z, *states)[1], h)


def test_a_step_may_read_nothing_and_give_nothing() -> None:
    layout = StepLayout([], [], {"h": Packing((2,), 1, F32)}, F32)
    cell = RolledCell(lambda r, s, c, w: ([], [s[0] * w[0]]), layout, [torch.tensor(3.0)], None, [(drawn(4), (0,))])
    assert (cell.input_size, cell.output_size) == (1, 1) and [n for n, _ in cell.named_buffers()] == ["weight_0"]
    assert cell.starts is None and cell.initial_state(3, drawn(3, 1))[0].tolist() == [[0, 0]] * 3
    y, h = cell.step(drawn(3, 1), torch.arange(6.0).reshape(3, 2))
    assert y.tolist() == [[0], [6], [12]] and h.tolist() == [[0, 3], [6, 9], [12, 15]]
    assert [(e.shape, axes) for e, axes in cell.captured_examples] == [((4,), (0,))]
    free = StepLayout([], [], {"h": Packing((2, 3), 0, F32, ((1, Formula(((1, ("time",)),))),))}, F32)
    assert RolledCell(lambda r, s, c, w: ([], []), free, [], None, []).is_free


# --------------------------------------------------------------------------------------------------------------- cells
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"])
def test_cells_are_those_of_torch(kind: str, bias: bool) -> None:
    gates = {"lstm_cell": 4, "gru_cell": 3}.get(kind, 1)
    w, u, b, d = drawn(5 * gates, 4), drawn(5 * gates, 5), drawn(5 * gates), drawn(5 * gates) + 0.5
    h: Any = (drawn(3, 5), drawn(3, 5) - 1) if kind == "lstm_cell" else drawn(3, 5)
    arguments = (drawn(3, 4), h, w, u, *((b, d) if bias else ()))
    wanted, got = getattr(torch, kind)(*arguments), CELLS[kind](*arguments)
    torch.testing.assert_close(got, wanted, **CLOSE)


SCANNED = {
    "floats": drawn(3, 6, 2),
    "ties": drawn(3, 6, 2).round(),
    "infinite": torch.tensor([[-math.inf, -math.inf, 1.0], [math.inf, -math.inf, 2], [-math.inf, 3, math.inf]]),
    "broken": torch.tensor([[1.0, math.nan, 2.0], [math.nan, 1, -math.inf]]),
}


@pytest.mark.parametrize("values", SCANNED)
@pytest.mark.parametrize("kind", ["cummax", "cummin", "cumprod", "logcumsumexp"])
def test_scans_are_those_of_torch(kind: str, values: str) -> None:
    x = SCANNED[values]
    for dim in (1, -1, 0):
        wanted, got = getattr(torch, kind)(x, dim), CELLS[kind](x, dim)
        if kind == "logcumsumexp" and values in ("infinite", "broken"):
            finite = torch.isfinite(wanted)
            assert not got[~finite].isfinite().any()
            wanted, got = wanted[finite], got[finite]
        torch.testing.assert_close(got, wanted, **CLOSE, equal_nan=True)
        assert type(got) is type(wanted)
    if kind in ("cummax", "cummin"):
        for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
            whole = (SCANNED["ties"] * 3).clamp(min=-9 * dtype.is_signed).to(dtype)
            if dtype.itemsize == 1:
                whole[0, 0], whole[1, :3] = torch.iinfo(dtype).min, torch.iinfo(dtype).max
            wanted, got = getattr(torch, kind)(whole, 1), CELLS[kind](whole, 1)
            assert got.values.dtype == dtype and all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True)), dtype
    if kind == "cumprod":
        got = CELLS[kind](torch.tensor([2, 3]), 0, dtype=F64)
        assert got.dtype == F64 and got.tolist() == [2, 6]


# --------------------------------------------------------------------------------------------------------------- scans
def recurrence(scan: Scan, factors: Tensor, values: Tensor) -> Tensor:
    a, x = (value.movedim(scan.axis, 0) for value in (factors, values))
    steps = list(range(len(x)))[:: -1 if scan.reverse else 1]
    state, out = torch.zeros_like(x[0]), torch.zeros_like(x)
    for t in steps:
        state = a[t] * state + x[t]
        out[t] = state
    return out.movedim(0, scan.axis)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factors", [0, 1])
@pytest.mark.parametrize("newer", [False, True])
def test_scans_of_others_are_known_by_what_they_give(factors: int, axis: int, reverse: bool, newer: bool) -> None:
    scan = Scan(factors, axis, reverse)

    def compute(*given: Tensor) -> Tensor:
        return recurrence(scan, given[factors], given[1 - factors])

    if newer:

        class Function(torch.autograd.Function):
            @staticmethod
            def forward(a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
                return compute(a, b)

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
                pass

    else:

        class Function(torch.autograd.Function):  # type: ignore[no-redef]
            @staticmethod
            def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
                assert ctx.needs_input_grad == (False, False)
                return compute(a, b)

    a, b = drawn(3, 4, 5), drawn(3, 4, 5) + 1
    assert find_scan(Function, (a, b)) == scan
    torch.testing.assert_close(as_loop(scan, (a, b)), forward_of(Function, a, b), **CLOSE)
    with forward_only():
        torch.testing.assert_close(Function.apply(a, b), compute(a, b), **CLOSE)
    assert find_scan(Function, (a, b[:2])) is None and find_scan(Function, (a,)) is None
    assert find_scan(Function, (a[:2, :2, :2], b[:2, :2, :2])) is None, "too short to tell"
    assert find_scan(Function, (a.long(), b.long())) is None and find_scan(Function, (a, 3.0)) is None


def test_what_is_no_scan_is_run_as_it_is() -> None:
    class Adds(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor, more: float = 1.0) -> Tensor:  # type: ignore[override]
            if not a.is_floating_point():
                raise ValueError("floats only")
            return (a + b) * more

    a, b = drawn(3, 4), drawn(3, 4)
    assert find_scan(Adds, (a, b)) is None and find_scan(Adds, (torch.ones(3), torch.ones(3))) is None
    with forward_only():
        with forward_only():
            assert torch.equal(Adds.apply(a, b, 2.0), (a + b) * 2)
        assert torch.equal(Adds.apply(a, b), a + b)
        assert torch.func.functionalize(lambda v: Adds.apply(v, b))(a).shape == (3, 4)
    assert Adds.apply(a.requires_grad_(), b).grad_fn is not None, "outside it is torch's own"

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
            raise ValueError("never")

    assert find_scan(Fails, (a.detach(), b)) is None
