"""``math.ceil(n / d)`` of sizes, as people write it, in whole numbers.

torch keeps such a size as a rounded quotient of floats, about which it can prove nothing: a stack of strided layers that pad
by it becomes a tower of them, with a guard for each pad, and takes minutes to trace.  In whole numbers it is a size like
others, and where the divisor is 1 it is the size itself.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any

import sympy
import torch
from sympy.core.function import Application
from torch.export import ExportedProgram

_OPERATIONS: dict[str, Any] = {
    "Add": operator.add,
    "Mul": operator.mul,
    "FloorDiv": operator.floordiv,
    "Max": lambda one, two: torch.sym_max(one, two),
    "Min": lambda one, two: torch.sym_min(one, two),
}
_lock = threading.Lock()
_users = 0
_NAMES = ("__ceil__", "__floor__", "__trunc__")
_ROUND = {name: getattr(torch.SymFloat, name, None) for name in _NAMES}
_WHOLE = {name: getattr(torch.SymInt, name, None) for name in _NAMES}


@contextmanager
def whole_quotients() -> Iterator[None]:
    """Round quotients of sizes in whole numbers inside the block; other threads get the same numbers in another spelling."""
    _exchange(+1, {"__ceil__": _ceil, "__floor__": _floor, "__trunc__": _trunc}, dict.fromkeys(_NAMES, _itself))
    try:
        yield
    finally:
        _exchange(-1, _ROUND, _WHOLE)


def add_in_pairs(program: ExportedProgram) -> None:
    """Write sums of sizes as additions: torch writes those of a size made anew as a call that it does not take itself."""
    graph = program.graph_module.graph
    for node in [node for node in graph.nodes if node.target is torch.sym_sum]:
        terms: Any = node.args[0] if isinstance(node.args[0], list | tuple) else node.args
        total = terms[0]
        with graph.inserting_before(node):
            for term in terms[1:]:
                values = [part.meta["val"] if isinstance(part, torch.fx.Node) else part for part in (total, term)]
                total = graph.call_function(operator.add, (total, term))
                total.meta["val"] = values[0] + values[1]
        node.replace_all_uses_with(total)
        graph.erase_node(node)
    program.graph_module.recompile()


def _exchange(change: int, of_quotients: Mapping[str, Any], of_sizes: Mapping[str, Any]) -> None:
    """Count who is inside; the first who enters and the last who leaves put the given methods in place."""
    global _users
    if None in (*_ROUND.values(), *_WHOLE.values()):
        return
    with _lock:
        before, _users = _users, _users + change
        if 0 in (before, _users):
            for name in _NAMES:
                setattr(torch.SymFloat, name, of_quotients[name])
                setattr(torch.SymInt, name, of_sizes[name])


def _itself(size: Any) -> Any:
    return size


def _ceil(number: Any) -> Any:
    return _rounded(number, _ROUND["__ceil__"], up=True)


def _floor(number: Any) -> Any:
    return _rounded(number, _ROUND["__floor__"], up=False)


def _trunc(number: Any) -> Any:
    parts = _quotient(number.node.expr)
    environment = getattr(number.node, "shape_env", None)
    if parts is None or environment is None or environment.bound_sympy(parts[0]).lower < max(0, -parts[2] * parts[1]):
        return _ROUND["__trunc__"](number)  # type: ignore[misc]
    return _floor(number)


def _rounded(number: Any, as_torch: Any, *, up: bool) -> Any:
    parts = _quotient(number.node.expr)
    environment = getattr(number.node, "shape_env", None)
    if parts is None or environment is None:
        return as_torch(number)
    numerator, divisor, offset = parts
    more = divisor - 1 if up else 0
    lower = environment.bound_sympy(numerator).lower
    if not isinstance(lower, sympy.Integer):
        return as_torch(number)
    # ONNX rounds quotients of whole numbers towards zero: what may be negative is raised by whole divisors.
    raised = max(0, -(-(-more - int(lower)) // divisor))
    return (_anew(numerator, environment, {}) + more + raised * divisor) // divisor + (offset - raised)


def _anew(expression: sympy.Expr, environment: Any, known: dict[sympy.Expr, Any]) -> Any:
    """The size that ``expression`` says, computed from the sizes of the inputs by operations that torch writes down."""
    if expression not in known:
        if expression.is_Integer:
            known[expression] = int(expression)
        elif expression.is_Symbol:
            known[expression] = environment.create_symintnode(expression, hint=None)
        else:
            parts = [_anew(part, environment, known) for part in expression.args]
            known[expression] = reduce(_OPERATIONS[type(expression).__name__], parts)
    return known[expression]


def _quotient(expression: sympy.Expr) -> tuple[sympy.Expr, int, int] | None:
    """(n, d, k) of ``n / d + k`` for a size n and whole numbers d > 0 and k; None for what is anything else."""
    parts = sympy.Add.make_args(expression)
    numbers = [part for part in parts if part.is_number]
    quotients = [part for part in parts if type(part).__name__ == "IntTrueDiv"]
    if len(quotients) != 1 or len(numbers) + 1 != len(parts) or any(float(number) != int(number) for number in numbers):
        return None
    numerator, divisor = quotients[0].args
    parts = {type(part).__name__ for part in numerator.atoms(Application)}
    if not divisor.is_Integer or int(divisor) < 1 or not parts <= {"FloorDiv", "Max", "Min"}:
        return None
    return numerator, int(divisor), sum(int(number) for number in numbers)
