"""The sizes of values, as the graph says them."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import onnx_ir as ir

_OPERATORS: dict[type[ast.AST], Callable[..., int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[..., int]] = {
    "Max": max,
    "Min": min,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "FloorDiv": operator.floordiv,
}


def dims_of(value: ir.Value | None) -> list[int | str | None]:
    """Sizes of the axes, names of those that are free, None for one without a name; nothing if nobody knows them."""
    if value is None or value.shape is None:
        return []
    return [d if isinstance(d, int) else d.value for d in value.shape]


def broadcast(shapes: Sequence[Sequence[int | str | None]]) -> list[int | str | None]:
    """What values of these sizes give together."""
    rank = max(map(len, shapes))
    padded = [[*[1] * (rank - len(dims)), *dims] for dims in shapes]
    return [next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True)]


def are_plain(dims: Sequence[int | str | None]) -> bool:
    """Whether each is a number or the size of an axis; what torch computes of sizes it may leave out ones of."""
    return all(isinstance(size, int) or (size is not None and size.isidentifier()) for size in dims)


def copying(before: Sequence[int | str | None], after: Sequence[int | str | None]) -> list[int]:
    """What a ``Reshape`` of ``before`` is asked for to give ``after``, 0 where it copies; nothing if a size is not known."""
    asked = [0 if isinstance(size, str) and [*before[k : k + 1]] == [size] else size for k, size in enumerate(after)]
    known = [size for size in asked if isinstance(size, int)]
    return known if len(known) == len(asked) else []


def adds_one(before: Sequence[int | str | None], after: Sequence[int | str | None], axis: int) -> bool:
    """Whether ``after`` are the sizes ``before`` with an axis of 1 put in."""
    return are_plain(after) and [*after] == [*before[:axis], 1, *before[axis:]]


def ends_of(node: ir.Node) -> tuple[list[int | str | None], list[int | str | None]]:
    """The sizes of the first input and of the first output."""
    return dims_of(node.inputs[0]), dims_of(node.outputs[0])


def size_at(size: int | str | None, sizes: Mapping[str, int]) -> int | None:
    """The size of an axis, such as ``((time - 3)//2) + 1``, where named ones have ``sizes``; None if nobody can tell."""
    if size is None or isinstance(size, int):
        return size
    try:
        return _value(_parsed(size), sizes)
    except (SyntaxError, KeyError, TypeError, ZeroDivisionError):
        return None


@lru_cache(maxsize=1 << 10)
def _parsed(size: str) -> ast.expr:
    """Kept, as each is asked at some two hundred sizes; SyntaxError for what is no expression."""
    return ast.parse(size, mode="eval").body


def _value(part: ast.expr, sizes: Mapping[str, int]) -> int:
    """What a part of an expression comes to; KeyError for what is not known."""
    if isinstance(part, ast.Constant) and type(part.value) is int:
        return part.value
    if isinstance(part, ast.Name):
        return sizes[part.id]
    if isinstance(part, ast.BinOp):
        return _OPERATORS[type(part.op)](_value(part.left, sizes), _value(part.right, sizes))
    if isinstance(part, ast.UnaryOp):
        return _OPERATORS[type(part.op)](_value(part.operand, sizes))
    if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and not part.keywords and part.args:
        return _FUNCTIONS[part.func.id](*(_value(argument, sizes) for argument in part.args))
    raise KeyError(ast.unparse(part))
