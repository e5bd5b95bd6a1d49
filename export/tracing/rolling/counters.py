"""Tensors that count the steps of a loop, ``t = t + 1`` or ``t += dt``: numbers that grow by the same amount.

They have no row of their own, and so no place among what a loop carries; what they are at a step is known without a loop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import Constant, leaves, mapped
from rnncore.export.tracing.rolling.merging import Block, Program, Statement
from rnncore.export.tracing.rolling.relations import Carried, Fixed, Number, Outside

aten = torch.ops.aten
_STEPS = {aten.add.Tensor: 1, aten.add.Scalar: 1, aten.sub.Tensor: -1, aten.sub.Scalar: -1}
_TOGETHER = {getattr(aten, name).Tensor for name in ("add", "sub", "mul", "div", "lt", "le", "gt", "ge", "eq", "ne")}


def with_counters(program: Program) -> Program:
    """``program`` in which counters are numbers."""
    blocks = [_without_counters(program, block) for block in program.blocks]
    return (
        program if all(a is b for a, b in zip(blocks, program.blocks, strict=True)) else replace(program, blocks=blocks)
    )


def _without_counters(program: Program, block: Block) -> Block:
    statements = list(block.statements)
    for place in range(len(statements)):
        found = _counter(program, statements[place], place)
        if found is None:
            continue
        before, number = found
        if not all(_may_read(statement, before, n == place) for n, statement in enumerate(statements)):
            continue
        own = statements[place]
        after = Number(Formula(((number.start.terms[0][0] + number.step, ()),)), number.step)
        shape = tuple(own.op.shapes[0])
        op = replace(own.op, target=aten.full.default, args=(), kwargs={"dtype": own.op.dtypes[0]}, several=False)
        sizes = tuple(Fixed(Formula(((size, ()),))) for size in shape)
        counted = Statement(op, ((sizes, after), (Fixed(own.op.dtypes[0]),)), own.shapes)
        statements = [
            counted
            if n == place
            else replace(statement, arguments=mapped(statement.arguments, _exchange(before, number)))
            for n, statement in enumerate(statements)
        ]
    same = all(a is b for a, b in zip(statements, block.statements, strict=True))
    return block if same else replace(block, statements=statements)


def _exchange(before: Carried, number: Number) -> Any:
    return lambda relation: number if relation == before else relation


def _counter(program: Program, statement: Statement, place: int) -> tuple[Carried, Number] | None:
    """What a statement has of itself one step ago, and the number that this is, if it only adds the same number to it."""
    sign = _STEPS.get(statement.op.target)
    if sign is None or len(statement.arguments[0]) != 2 or any(statement.arguments[1]):
        return None
    if torch.Size(statement.op.shapes[0]).numel() != 1 or statement.op.dtypes[0] == torch.bool:
        return None
    carried, step = statement.arguments[0]
    if not isinstance(carried, Carried):
        carried, step = (step, carried) if sign > 0 else (carried, step)
    if not isinstance(carried, Carried) or (carried.place, carried.part, len(carried.starts)) != (place, 0, 1):
        return None
    start = _number(program, carried.starts[0])
    amount = _number(program, step.value) if isinstance(step, Fixed) else None
    if start is None or amount is None:
        return None
    kind = float if statement.op.dtypes[0].is_floating_point else int
    return carried, Number(Formula(((kind(start), ()),)), kind(sign * amount))


def _number(program: Program, value: Any) -> int | float | None:
    """A value that is one number at all sizes."""
    if isinstance(value, Outside) and value.part == 0:
        statement = program.statements[value.op]
        if statement.op.target is aten.full.default and torch.Size(statement.op.shapes[0]).numel() == 1:
            return _number(program, statement.arguments[0][1])
        sign = _STEPS.get(statement.op.target)  # the first step, which stands before the loop
        if sign is None or len(statement.arguments[0]) != 2 or any(statement.arguments[1]):
            return None
        first, second = (_number(program, argument) for argument in statement.arguments[0])
        return None if first is None or second is None else first + sign * second
    if isinstance(value, Constant):
        return value.numbers[0] if len(value.numbers) == 1 and not isinstance(value.numbers[0], complex) else None
    if isinstance(value, Formula):
        return value({}) if value.constant else None
    return value if type(value) in (int, float) else None


def _may_read(statement: Statement, before: Carried, own: bool) -> bool:
    """Whether a statement that reads the counter of the step before takes a number in its place."""
    if own or before not in leaves(statement.arguments):
        return True
    together = statement.op.target in _TOGETHER and len(statement.op.shapes[0]) > 0
    return together or statement.op.target is aten.embedding.default
