"""What loops are found in, piece by piece: logs, relations of arguments over iterations, runs of results, numbers of formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncore.export.tracing.rolling.evaluation import Evaluation, execute, listed, take
from rnncore.export.tracing.rolling.evaluation import given as known_number
from rnncore.export.tracing.rolling.first_step_matching import earlier, equal, plus
from rnncore.export.tracing.rolling.fitting import Formula, fit
from rnncore.export.tracing.rolling.known_operators import FILLED, same_as
from rnncore.export.tracing.rolling.log import Constant, Input, Log, Op, Ref, Weight, leaves, mapped
from rnncore.export.tracing.rolling.merging import Block, Program, Run, Statement, _run, _with_runs
from rnncore.export.tracing.rolling.relations import (
    Carried,
    Fixed,
    Inside,
    ListItem,
    LoopItem,
    Number,
    Outside,
    Same,
    relate,
)
from rnncore.export.tracing.rolling.writes import StartPart
from rnncore.runtime.errors import ExportError

aten = torch.ops.aten
F32, I64 = torch.float32, torch.int64


def op(target: Any, *args: Any, shapes: Any = ((3, 4),), dtypes: Any = None, several: bool = False, **named: Any) -> Op:
    return Op(target, args, named, list(shapes), dtypes or [F32] * len(shapes), several)


def number(n: float) -> Formula:
    return Formula(((n, ()),))


def size(name: str, factor: int = 1) -> Formula:
    return Formula(((factor, (name,)),))


# ---------------------------------------------------------------------------------------------------------------- logs
def test_constants_are_known_by_their_numbers() -> None:
    value = torch.tensor([[1.5, 2.0]], dtype=torch.float64)
    found = Constant.of(value)
    assert found == Constant(torch.float64, (1, 2), (1.5, 2.0)) and torch.equal(found.tensor(), value)
    assert found.tensor().dtype == torch.float64 and Constant.of(torch.tensor(True)) == Constant(
        torch.bool, (), (True,)
    )


def test_operations_are_alike_by_kind_and_more_strictly_by_what_they_take() -> None:
    first = op(aten.add.Tensor, Ref(0), Input(1), alpha=2)
    assert first.name == "add" and first.everything == ((Ref(0), Input(1)), (2,))
    assert first.with_arguments(((1, 2), (3,))) == ((1, 2), {"alpha": 3})
    ordered = op(aten.sum.dim_IntList, Ref(0), zeta=1, alpha=2)
    assert ordered.everything == ((Ref(0),), (2, 1)) and ordered.with_arguments(((), (5, 6))) == (
        (),
        {"alpha": 5, "zeta": 6},
    )
    assert first.signature(strict=False) == ("aten.add.Tensor", 2, ("alpha",))
    strict = first.signature(strict=True)
    for same in (op(aten.add.Tensor, Ref(7), Weight("w"), alpha=3), op(aten.add.Tensor, Ref(0), Ref(1), alpha=9)):
        assert same.signature(strict=True) == strict
    for other in (
        op(aten.add.Tensor, Ref(0), 2, alpha=2),
        op(aten.add.Tensor, Ref(0), Input(1), alpha=2.0),
        op(aten.add.Tensor, Ref(0), Input(1)),
        op(aten.mul.Tensor, Ref(0), Input(1), alpha=2),
        op(aten.add.Tensor, Ref(0), Input(1), alpha=2, shapes=((3,),)),
        op(aten.add.Tensor, Ref(0), Input(1), alpha=2, dtypes=[I64]),
    ):
        assert other.signature(strict=True) != strict
    lists = [op(aten.split.Tensor, Ref(0), 1, shapes=[(1, 4)] * n, several=True) for n in (2, 3)]
    assert lists[0].signature(strict=True) == lists[1].signature(strict=True)
    assert op(aten.cat.default, (Ref(0), Ref(1))).signature(strict=True) != op(aten.cat.default, (Ref(0),)).signature(
        strict=True
    )


def test_logs_keep_what_is_used_and_count_it_anew() -> None:
    ops = [
        op(aten.tanh.default, Input(0)),
        op(aten.exp.default, Input(0)),
        op(aten.add.Tensor, Ref(0), Ref(1), alpha=Ref(0)),
        op(aten.neg.default, Ref(1)),
        op("question", Ref(3), shapes=(), dtypes=[]),
    ]
    log = Log({"time": 4}, ops, [("y", Ref(2)), ("z", Input(0))], {Input(0): (3, 4)}, {Input(0): I64})
    assert log.shape(Input(0)) == log.shape(Ref(1)) == (3, 4) and (log.dtype(Input(0)), log.dtype(Ref(1))) == (I64, F32)
    assert log.used() == log, "questions give nothing and are kept"
    shorter = Log(log.sizes, ops[:4], log.outputs, log.shapes, log.dtypes).used()
    assert [o.name for o in shorter.ops] == ["tanh", "exp", "add"]
    fewer = Log(log.sizes, ops[:4], [("z", Ref(3))]).keeping([1, 3])
    assert [o.args for o in fewer.ops] == [(Input(0),), (Ref(0),)] and fewer.outputs == [("z", Ref(1))]


def test_nested_arguments_are_walked_in_order() -> None:
    value = (1, (2, (3, ())), "x")
    assert list(leaves(value)) == [1, 2, 3, "x"] and mapped(value, str) == ("1", ("2", ("3", ())), "x")


# ----------------------------------------------------------------------------------------------------------- relations
def related(*column: Any, period: int = 3) -> tuple[Any, int]:
    """Of arguments in iterations of a loop that begins at operation 10."""
    inside = {5: Inside(0, 2, 4, 0), 6: Inside(0, 2, 5, 0), 7: Inside(0, 2, 6, 0), 8: Inside(1, 2, 9, 0)}
    return relate(column, 10, period, lambda ref: inside.get(ref.op, Outside(ref.op, ref.part)))


def test_what_arguments_are_over_the_iterations() -> None:
    w, x = Weight("w"), Input(0)
    assert (
        related(w, w, w) == (Fixed(w), 3) and related(w, w, x) == (Fixed(w), 2) and related("a", "a") == (Fixed("a"), 2)
    )
    assert related(4, 4, 4, 5) == (Fixed(4), 3) and related(4, 6, 8, 9) == (Number(4, 2), 3)
    assert related(float("inf"), float("inf")) == (Fixed(float("inf")), 2)
    assert related(0.1, 0.2, 0.1 + 0.2, 0.4)[1] == 4 and related(0.0, 1.0, 2.0001)[1] == 2
    assert related(5, 4, 3, 3) == (Number(5, -1), 3)
    # Results of the same iteration, of those before, of the operations before the loop.
    assert related(Ref(11), Ref(14), Ref(17)) == (Same(1, 0), 3) and related(Ref(11), Ref(14), Ref(18)) == (
        Same(1, 0),
        2,
    )
    assert related(Ref(4), Ref(11), Ref(14)) == (Carried(1, 0, (Outside(4, 0),)), 3)
    assert related(w, w, Ref(12), Ref(15), Ref(19)) == (Carried(2, 0, (w, w)), 4)
    assert related(w, x, Ref(12), Ref(15)) == (Carried(2, 0, (w, x)), 4)
    assert related(0.5, 0.5, Ref(12), Ref(15)) == (Carried(2, 0, (0.5, 0.5)), 4)
    assert related(w, w, w, Ref(12), Ref(15)) == (Fixed(w), 3), "another loop of the same code reads what this one gave"
    assert related(Ref(4), Ref(14), Ref(17))[1] == 0, "never an iteration ahead"
    assert related(Ref(3), Ref(3), Ref(3)) == (Fixed(Outside(3, 0)), 3)
    assert related(Ref(3, 2), Ref(3, 1), Ref(3, 0), Ref(3, 5)) == (ListItem(3, 2, -1), 3)
    assert related(Ref(5), Ref(6), Ref(7)) == (LoopItem(0, 2, 0, 4, 1), 3) and related(Ref(5), Ref(6), Ref(8))[1] == 2
    assert related(Ref(7), Ref(6), Ref(5)) == (LoopItem(0, 2, 0, 6, -1), 3) and related(Ref(5), Ref(8)) == (None, 0)
    assert related(Ref(3), Ref(4)) == (None, 0) and related(Ref(3), 5.0) == (None, 0)
    # The loop's own code once more, reading what the loop gave: the longer of both readings counts.
    assert related(Ref(3), Ref(3), Ref(3), Ref(17)) == (Fixed(Outside(3, 0)), 3)


# ---------------------------------------------------------------------------------------------------------------- runs
def at(place: int, iteration: int, part: int = 0) -> Inside:
    return Inside(0, place, iteration, part)


def test_results_of_successive_iterations_are_runs() -> None:
    assert _with_runs([at(1, k) for k in range(4)]) == (Run(0, ((1, 0),), 0, 1, 4),)
    assert _with_runs([at(1, k) for k in (5, 4, 3)]) == (Run(0, ((1, 0),), 5, -1, 3),)
    two = [entry for k in range(3) for entry in (at(1, k), at(4, k, 1))]
    assert _with_runs(two) == (Run(0, ((1, 0), (4, 1)), 0, 1, 3),)
    assert _with_runs([Input(0), *two, Input(1)]) == (Input(0), Run(0, ((1, 0), (4, 1)), 0, 1, 3), Input(1))
    assert _with_runs([at(1, 0), at(1, 2), at(1, 3)]) == (at(1, 0), Run(0, ((1, 0),), 2, 1, 2))
    assert _with_runs([at(1, 0)]) == (at(1, 0),) and _with_runs([]) == ()
    four = [at(place, k) for k in range(2) for place in range(4)]
    assert _with_runs(four) == (Run(0, tuple((p, 0) for p in range(4)), 0, 1, 2),)
    five = [at(place, k) for k in range(2) for place in range(5)]
    assert _with_runs(five) == tuple(five), "more than four of an iteration are none"
    assert _run([at(1, 0), at(2, 1), at(1, 1), at(2, 2)], 2) is None and _run([at(1, 0), Input(0)], 1) is None
    assert _run([at(1, 0), Inside(1, 1, 1, 0)], 1) is None


# -------------------------------------------------------------------------------------------------------------- numbers
def test_formulas_are_equal_where_their_numbers_are() -> None:
    twice, time = size("time", 2), size("time")
    assert equal(3, 3.0) and equal(number(3), 3) and not equal(number(3), 4) and equal("a", "a") and not equal("a", 3)
    assert equal(Formula(((1, ("time",)), (1, ("time",)))), twice) and not equal(time, size("batch"))
    assert not equal(time, twice) and not equal(None, 3) and equal(plus(time, 2)({"time": 5}), 7) and plus(5, -2) == 3
    assert not equal(Formula(((1, ("time",)),), 2), Formula(((1, ("time",)),), 2, 1))
    assert earlier(Number(5, 2)) == Number(3, 2) and earlier(ListItem(1, 4, -1)) == ListItem(1, 5, -1)
    assert earlier(LoopItem(0, 1, 0, number(4), 1)).start({}) == 3 and earlier(Same(1, 0)) == Same(1, 0)


def test_formulas_know_their_axes() -> None:
    both = Formula(((2, ("batch", "time")), (3, ())))
    assert both({"batch": 4, "time": 5}) == 43 and both.axes == {"batch", "time"} and not both.constant
    assert number(3).constant and number(3)({}) == 3
    half = Formula(((1, ("time",)), (1, ("batch",))), 2, 1)
    assert half({"time": 8, "batch": 7}) == 11 and half({"time": 9, "batch": 7}) == 12


@given(st.integers(2, 8), st.data())
def test_numbers_that_are_divided_are_found(divisor: int, data: st.DataObject) -> None:
    shift = data.draw(st.integers(0, divisor - 1))
    sizes = [(3, 6), (3, 7), (3, 8), (3, 9), (4, 6), (4, 7), (5, 12), (3, 17)]
    points = [{"batch": b, "time": t} for b, t in sizes]
    found = fit([(p["time"] + shift) // divisor * 3 + 1 for p in points], points)
    assert found is not None
    assert all(found(p) == (p["time"] + shift) // divisor * 3 + 1 for p in points)
    assert fit([0.5, 0.5], points[:2]) == number(0.5) and fit([0, 1, 0, 1, 5, 0, 2, 9], points) is None
    floats = fit([p["time"] * 0.25 for p in points], points)
    assert floats is not None and floats({"batch": 2, "time": 40}) == pytest.approx(10)


def test_operations_that_change_nothing_are_known() -> None:
    x, y = torch.zeros(2, 3), torch.zeros(2, 3)
    assert same_as(aten.detach.default, (x,), x) == 0 and same_as(aten.tanh.default, (x,), x) is None
    for extent, same in (
        ((), True),
        ((0, 0, 2**62), True),
        ((0, None, None), True),
        ((0, 1), False),
        ((0, 0, 2), False),
        ((0, 0, 2**63 - 1, 2), False),
        ((0, 0, 2**63 - 1, 1), True),
    ):
        assert (same_as(aten.slice.Tensor, (x, *extent), x) == 0) is same, extent
        assert (same_as(aten.slice_scatter.default, (x, y, *extent), x) == 1) is same
    assert same_as(aten.copy.default, (x, y), x) == 1 and same_as(aten.copy.default, (x, y[0]), x) is None
    assert same_as(aten.copy.default, (x, y.double()), x) is None
    assert same_as(aten.expand.default, (x, [2, 3]), x) == 0 and same_as(aten.expand.default, (x[0], [2, 3]), x) is None
    assert [FILLED[t]((x, (2,), 7.0)) for t in (aten.zeros.default, aten.ones_like.default, aten.new_full.default)] == [
        *(0.0, 1.0, 7.0)
    ]
    assert FILLED[aten.full_like.default]((x, 4.0)) == 4.0


# ----------------------------------------------------------------------------------------------------------- evaluation
def program(*statements: Statement, blocks: Any = ()) -> Program:
    return Program(list(statements), list(blocks), [], [], {})


def statement(target: Any, *args: Any, **settings: Any) -> Statement:
    own = op(target, **settings)
    return Statement(own, (args, ()), [tuple(map(number, shape)) for shape in own.shapes])


X = torch.arange(24.0).reshape(2, 3, 4)


def evaluation(*statements: Statement, blocks: Any = ()) -> Evaluation:
    weights = {"w": torch.ones(2)}
    return Evaluation(program(*statements, blocks=blocks), [X], {"time": 3}, weights.__getitem__, {})


def test_values_of_a_program() -> None:
    run = evaluation(
        statement(aten.unbind.int, Input(0), 1),
        statement(aten.split.Tensor, Input(0), 2, 2),
        statement(aten.chunk.default, Input(0), 2),
        statement(aten.unbind.int, Input(0)),
        statement(aten.split.Tensor, Input(0), 1),
    )
    assert run.value(size("time", 2)) == 6 and run.value(Input(0)) is X and run.value("text") == "text"
    assert run.value(Weight("w")).tolist() == [1, 1] and run.value(Constant(F32, (1,), (2.0,))).tolist() == [2]
    assert torch.equal(run.value(Outside(0, 1)), X[:, 1])
    last = plus(size("time"), -1)
    assert torch.equal(run.value(Outside(0, last)), X[:, 2]) and torch.equal(
        run.value(Outside(1, number(1))), X[..., 2:]
    )
    assert torch.equal(run.value(Outside(3, number(1))), X[1]) and torch.equal(run.value(Outside(4, number(1))), X[1:2])
    with pytest.raises(ExportError, match=r"it reads the end of what aten.chunk.default gives"):
        run.value(Outside(2, last))
    with pytest.raises(ExportError, match="a value of a loop is read before the loop"):
        evaluation(blocks=[Block(number(3), [])]).value(Inside(0, 0, number(1), 0))
    assert torch.equal(run.value(StartPart(Input(0), 2, Number(number(1), 1))), X[..., 2])
    assert run.last(0, 0, 0) is None


def test_what_operations_get_and_give() -> None:
    assert listed(((1, (2, (3,))), ((4,),))) == ((1, [2, [3]]), ([4],))
    filled = statement(aten.full.default, (2, 1), torch.tensor([7]), dtypes=[I64])
    found = execute(filled, lambda value: value)
    assert found[0].tolist() == [[7], [7]] and found[0].dtype == I64
    assert len(execute(statement(aten.unbind.int, X, 1), lambda value: value)) == 3


@pytest.mark.parametrize("reverse", [False, True])
def test_results_of_loops_are_picked_and_joined(reverse: bool) -> None:
    count, along = size("time"), X.movedim(1, 0)  # [turns, 2, 4]
    run_all, back = Run(0, ((0, 0),), number(0), 1, count), Run(0, ((0, 0),), plus(count, -1), -1, count)
    later = Run(0, ((0, 0), (0, 0)), number(1), 1, number(2))
    run = evaluation(
        statement(aten.stack.default, (run_all,), 1, shapes=((2, 3, 4),)),
        statement(aten.stack.default, (back,), -1, shapes=((2, 4, 3),)),
        statement(aten.cat.default, (Outside(4, 0), run_all), 1, shapes=((2, 16),)),
        statement(aten.cat.default, (later, Outside(4, 0)), shapes=((10, 4),)),
        statement(aten.select.int, Input(0), 1, 0, shapes=((2, 4),)),
        statement(aten.stack.default, (Outside(4, 0), back), shapes=((4, 2, 4),)),
        statement(aten.sum.default, (run_all,)),
        statement(aten.cat.default, (back,), -1, shapes=((2, 12),)),
        blocks=[Block(count, [])],
    )
    run.loop = lambda loop, place, part: (along.flip(0) if reverse else along, reverse)
    first, steps = X[:, 0], [X[:, t] for t in range(3)]
    assert torch.equal(run.value(Outside(0, 0)), X) and torch.equal(
        run.value(Outside(1, 0)), torch.stack(steps[::-1], -1)
    )
    assert torch.equal(run.value(Outside(2, 0)), torch.cat([first, *steps], 1))
    assert torch.equal(run.value(Outside(3, 0)), torch.cat([steps[1], steps[1], steps[2], steps[2], first]))
    assert torch.equal(run.value(Outside(5, 0)), torch.stack([first, *steps[::-1]]))
    assert torch.equal(run.value(Outside(7, 0)), torch.cat(steps[::-1], -1))
    with pytest.raises(ExportError) as caught:
        run.value(Outside(6, 0))
    says = "a list of the results of a loop goes into aten.sum.default; stack or cat is what can be rolled"
    assert str(caught.value) == says
    assert torch.equal(run.value(Inside(0, 0, number(1), 0)), steps[1])
    assert torch.equal(run.value(Inside(0, 0, plus(count, -1), 0)), steps[2])
    run.last = lambda loop, place, part: torch.ones(5)
    assert run.value(Inside(0, 0, plus(count, -1), 0)).tolist() == [1] * 5, "the last is known already"
    assert torch.equal(run.value(Inside(0, 0, number(0), 0)), steps[0])


@given(st.integers(1, 12), st.integers(-4, 4).filter(bool), st.integers(0, 5), st.integers(0, 1), st.booleans())
def test_entries_of_all_iterations_are_taken_at_once(turns: int, step: int, low: int, dim: int, ordered: bool) -> None:
    first = low if step > 0 else low + (turns - 1) * -step
    value = torch.arange(2.0 * 60).reshape(2, 60) if dim else torch.arange(2.0 * 60).reshape(60, 2)
    got = take(value, dim, Number(known_number(first), step), turns, {}, ordered=ordered)
    places = [first + step * k for k in range(turns)]
    wanted = value.movedim(dim, 0)[places if ordered else sorted(places)]
    assert torch.equal(got, wanted)
    from_the_end = take(value, dim, Number(number(-1), -1), 3, {}, ordered=True)
    assert torch.equal(from_the_end, value.movedim(dim, 0)[[59, 58, 57]])
