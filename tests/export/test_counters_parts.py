"""Tensors that count the steps of a loop, in programs of a few statements."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rnncore.export.tracing.rolling.counters import with_counters
from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import Constant, Input, Op, Weight
from rnncore.export.tracing.rolling.merging import Block, Program, Statement
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Number, Outside, Same

aten = torch.ops.aten
F32, I64 = torch.float32, torch.int64
ONE = Constant(F32, (), (1.0,))


def number(n: float) -> Formula:
    return Formula(((n, ()),))


def statement(
    target: Any, *args: Any, shape: tuple[int, ...] = (), dtype: Any = F32, named: tuple[Any, ...] = ()
) -> Statement:
    op = Op(target, args, dict(zip("abc", named, strict=False)), [shape], [dtype], False)
    return Statement(op, (args, named), [tuple(map(number, shape))])


def program(counter: Statement, *others: Statement, outside: tuple[Statement, ...] = ()) -> Program:
    return Program(list(outside), [Block(number(5), [counter, *others])], [], [], {})


def carried(start: Any, place: int = 0) -> Carried:
    return Carried(place, 0, (start,))


def counted(counter: Statement, *others: Statement, outside: tuple[Statement, ...] = ()) -> Any:
    """What the first statement counts, (first, step); None if it is left as it is."""
    given = program(counter, *others, outside=outside)
    found = with_counters(given)
    if found is given:
        return None
    own = found.blocks[0].statements[0]
    assert own.op.target is aten.full.default and own.op.kwargs == {"dtype": own.op.dtypes[0]} and not own.op.several
    (sizes, after), (dtype,) = own.arguments
    assert [size.value({}) for size in sizes] == list(counter.op.shapes[0]) or all(
        size.value({}) == 1 for size in sizes
    )
    assert dtype == Fixed(counter.op.dtypes[0]) and found.blocks[0].count == number(5)
    return after.start({}), after.step


FULL = statement(aten.full.default, (), 4.0)


@pytest.mark.parametrize(
    ("counter", "wanted"),
    [
        ((aten.add.Tensor, carried(ONE), Fixed(ONE)), (2, 1)),
        ((aten.add.Scalar, carried(ONE), Fixed(number(3))), (4, 3)),
        ((aten.add.Tensor, Fixed(ONE), carried(number(0.5))), (1.5, 1)),
        ((aten.sub.Tensor, carried(ONE), Fixed(number(0.25))), (0.75, -0.25)),
        ((aten.sub.Scalar, carried(7), Fixed(2)), (5, -2)),
        ((aten.sub.Tensor, Fixed(ONE), carried(ONE)), None),
        ((aten.mul.Tensor, carried(ONE), Fixed(ONE)), None),
        ((aten.add.Tensor, carried(ONE), Same(0, 0)), None),
        ((aten.add.Tensor, carried(Input(0)), Fixed(ONE)), None),
        ((aten.add.Tensor, carried(ONE), Fixed(Weight("w"))), None),
        ((aten.add.Tensor, carried(ONE, 1), Fixed(ONE)), None),
        ((aten.add.Tensor, Carried(0, 0, (ONE, ONE)), Fixed(ONE)), None),
        ((aten.add.Tensor, carried(Formula(((1, ("time",)),))), Fixed(ONE)), None),
        ((aten.add.Tensor, carried(Constant(F32, (2,), (1.0, 2.0))), Fixed(ONE)), None),
        ((aten.add.Tensor, carried(ONE), Fixed(Constant(torch.complex64, (), (1j,)))), None),
        ((aten.add.Tensor, carried(Outside(0, 0)), Fixed(ONE)), (5, 1)),
        ((aten.add.Tensor, carried(Outside(0, 1)), Fixed(ONE)), None),
        ((aten.add.Tensor, carried(Outside(1, 0)), Fixed(ONE)), (6, 1)),
        ((aten.add.Tensor, carried(Outside(2, 0)), Fixed(ONE)), (4, 1)),
        ((aten.add.Tensor, carried(Outside(3, 0)), Fixed(ONE)), None),
        ((aten.add.Tensor, carried(Outside(4, 0)), Fixed(ONE)), None),
    ],
)
def test_counters_are_known(counter: tuple[Any, ...], wanted: Any) -> None:
    outside = (
        FULL,
        statement(aten.add.Tensor, Outside(0, 0), ONE),
        statement(aten.sub.Scalar, Outside(0, 0), 1),
        statement(aten.mul.Tensor, Outside(0, 0), ONE),
        statement(aten.add.Tensor, Outside(0, 0), Input(0)),
    )
    assert counted(statement(*counter), outside=outside) == wanted


def test_what_is_no_single_number_is_no_counter() -> None:
    add = (aten.add.Tensor, carried(ONE), Fixed(ONE))
    assert counted(statement(*add, shape=(1, 1))) == (2, 1) and counted(statement(*add, shape=(3,))) is None
    assert counted(statement(*add, dtype=torch.bool)) is None and counted(statement(*add, named=(2,))) is None
    whole = counted(statement(aten.add.Tensor, carried(Constant(I64, (), (3,))), Fixed(2), dtype=I64))
    assert whole == (5, 2) and type(whole[1]) is int and type(counted(statement(*add))[1]) is float
    three = statement(aten.add.Tensor, carried(ONE), Fixed(ONE), Fixed(1))
    assert counted(three) is None


def test_who_reads_the_step_before_takes_a_number() -> None:
    counter, before = statement(aten.add.Tensor, carried(ONE), Fixed(ONE)), carried(ONE)
    for target, shape, takes in (
        (aten.mul.Tensor, (2, 3), True),
        (aten.lt.Tensor, (2, 3), True),
        (aten.mul.Tensor, (), False),
        (aten.tanh.default, (2, 3), False),
        (aten.embedding.default, (2, 3), True),
    ):
        reader = statement(target, Fixed(Input(0)), before, shape=shape)
        assert (counted(counter, reader) == (2, 1)) is takes, target
        if takes:
            found = with_counters(program(counter, reader)).blocks[0].statements[1]
            assert found.arguments == ((Fixed(Input(0)), Number(number(1), 1.0)), ())
    beside = statement(aten.tanh.default, Same(0, 0), shape=(2,))
    assert counted(counter, beside) == (2, 1), "the number of this step is as it was"
    plain = program(beside)
    assert with_counters(plain) is plain
