"""Numbers that follow the sizes, as tensors of one number: what a loop reads in every step has to be a tensor.

``y * (1 / steps)`` or ``scores / math.sqrt(n)`` is an operation with a number; where that is another one at other sizes, an
operation outside of all loops makes a tensor of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rnncore.export.tracing.callers import Line
from rnncore.export.tracing.rolling.curves import Curve
from rnncore.export.tracing.rolling.fitting import Formula
from rnncore.export.tracing.rolling.log import Log, Op, leaves
from rnncore.export.tracing.rolling.merging import Block, Program, Statement, refusal
from rnncore.export.tracing.rolling.relations import Fixed, Outside

aten = torch.ops.aten
_TWO = ("add", "sub", "mul", "div", "rsub", "lt", "le", "gt", "ge", "eq", "ne")
_WITH_TENSORS: dict[Any, Any] = {getattr(aten, name).Tensor: getattr(aten, name).Tensor for name in _TWO}
_WITH_TENSORS |= {getattr(aten, name).Scalar: getattr(aten, name).Tensor for name in _TWO}
_WITH_TENSORS |= {aten.pow.Tensor_Scalar: aten.pow.Tensor_Tensor, aten.div.Tensor_mode: aten.div.Tensor_mode}
"""Operations of a tensor and a number, and what they are with a tensor of one number."""


def with_numbers_of_sizes(program: Program) -> Program:
    """``program`` in which curves, and numbers that loops read and that follow the sizes, are results of operations.

    Raises:
        ExportError: an operation takes such a number that takes no tensor in its place; names the line of code.
    """
    made = _Numbers(program)
    statements = [made.outside(statement) for statement in program.statements]
    blocks = [
        Block(block.count, [made.inside(statement) for statement in block.statements]) for block in program.blocks
    ]
    if not made.statements:
        return program
    first = len(statements)
    order = [("op", first + n) for n in range(len(made.statements))] + list(program.order)
    return replace(program, statements=[*statements, *made.statements], blocks=blocks, order=order)


def has_floats_of_sizes(logs: Sequence[Log]) -> bool:
    """Whether an operation is given a float that differs from log to log, of logs that are as long as one another."""
    floats = [[v for op in log.ops for v in leaves(op.everything) if type(v) is float] for log in logs]
    return any(one != floats[0] for one in floats[1:])


class _Numbers:
    """What makes the tensors of one number."""

    def __init__(self, program: Program) -> None:
        self._first = len(program.statements)
        self.statements: list[Statement] = []
        self._known: dict[tuple[Any, torch.dtype], Outside] = {}

    def outside(self, statement: Statement) -> Statement:
        """A statement outside of loops, without curves."""
        if not any(isinstance(value, Curve) for value in leaves(statement.arguments)):
            return statement
        op = statement.op
        return self._exchanged(
            statement, [self._value(v, op) if isinstance(v, Curve) else v for v in statement.arguments[0]]
        )

    def inside(self, statement: Statement) -> Statement:
        """A statement of a loop, without curves and numbers that follow the sizes where a tensor may stand."""
        args = list(statement.arguments[0])
        for n, relation in enumerate(args[:2]):
            if isinstance(relation, Fixed) and (
                isinstance(relation.value, Curve)
                or (
                    n == 1
                    and statement.op.target in _WITH_TENSORS
                    and isinstance(relation.value, Formula)
                    and not relation.value.constant
                )
            ):
                args[n] = Fixed(self._value(relation.value, statement.op))
        if all(a is b for a, b in zip(args, statement.arguments[0], strict=True)):
            left = any(isinstance(v.value, Curve) for v in leaves(statement.arguments) if isinstance(v, Fixed))
            if left:
                raise no_rule(statement.op)
            return statement
        return self._exchanged(statement, args)

    def _exchanged(self, statement: Statement, args: list[Any]) -> Statement:
        target = _WITH_TENSORS.get(statement.op.target)
        if target is None or any(isinstance(v, Curve) for v in leaves((tuple(args), statement.arguments[1]))):
            raise no_rule(statement.op)
        return replace(
            statement, op=replace(statement.op, target=target), arguments=(tuple(args), statement.arguments[1])
        )

    def _value(self, number: Curve | Formula, op: Op) -> Outside:
        """The number as a tensor that makes no other dtype of the result."""
        dtype = op.dtypes[0] if op.dtypes[0].is_floating_point else torch.float64
        if (number, dtype) not in self._known:
            inner, steps = (number.inner, number.steps) if isinstance(number, Curve) else (number, ())
            last = self._add(aten.scalar_tensor.default, (inner,), torch.float64, op.lines)
            for name, factor in steps:
                if factor is None:
                    last = self._add(getattr(aten, name).default, (last,), None, op.lines)
                else:
                    last = self._add(getattr(aten, name).Tensor, (last, factor), None, op.lines)
            if dtype != torch.float64:
                last = self._add(aten._to_copy.default, (last,), dtype, op.lines)
            self._known[number, dtype] = last
        return self._known[number, dtype]

    def _add(self, target: Any, args: tuple[Any, ...], dtype: torch.dtype | None, lines: tuple[Line, ...]) -> Outside:
        named = {} if dtype is None else {"dtype": dtype}
        op = Op(target, args, named, [()], [dtype or torch.float64], False, lines)
        plain = tuple(Formula(((value, ()),)) if isinstance(value, float) else value for value in args)
        self.statements.append(Statement(op, (plain, tuple(named.values())), [()]))
        return Outside(self._first + len(self.statements) - 1, 0)


def no_rule(op: Op) -> Exception:
    """The refusal of a number that stands where no tensor may stand."""
    return refusal(op, f"a number that follows the sizes otherwise than by sums and products, in {op.name}")
