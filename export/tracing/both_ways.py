"""``if t % 3 == 0:`` in the steps of a loop, as both ways in every step and a choice between what they give.

A loop whose steps differ by their number cannot be rolled.  Where the number of the step decides between two ways that do
nothing but give values to names, code that goes both and chooses by the number answers the same, and its steps are all alike.
It is Python that is written anew, of the functions of the user's modules; the untouched module proves what comes of it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.copying import copied
from rnncore.export.tracing.source_lines import is_users

_COMPARED = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_TEST = (ast.Compare, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Name, ast.Attribute, ast.Subscript, ast.Constant)
_STEP, _TRUE, _TAKE, _CHOOSE, _EVERY, _EITHER, _NOT = (
    f"__rnncore_{name}" for name in ("step", "true", "take", "choose", "every", "either", "not")
)
_OURS = "__rnncore_"
_UNBOUND = object()


def with_both_ways(module: nn.Module) -> nn.Module | None:
    """A copy of ``module`` whose steps are alike; None if no step of its own code asks for its number."""
    kinds = {type(part) for part in module.modules()}
    found = {kind: methods for kind in kinds if (methods := _rewritten_methods(kind))}
    if not found:
        return None
    made = copied(module)
    for part in made.modules():
        kind: Any = type(part)
        if kind in found:
            part.__class__ = type(kind.__name__, (kind,), {**found[kind], "__module__": kind.__module__})
    return made


def _rewritten_methods(kind: type) -> dict[str, FunctionType]:
    found: dict[str, FunctionType] = {}
    for base in reversed(kind.__mro__):
        for name, function in vars(base).items():
            if isinstance(function, FunctionType) and is_users(function.__code__.co_filename):
                made = _rewritten(function)
                if made is not None:
                    found[name] = made
                else:
                    found.pop(name, None)
    return found


def _rewritten(function: FunctionType) -> FunctionType | None:
    """``function`` that goes both ways; None where it asks for no number of a step, or its text is not known."""
    try:
        lines, start = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef) or definition.decorator_list:
        return None
    writer = _Writer(
        [a.arg for a in (*definition.args.posonlyargs, *definition.args.args, *definition.args.kwonlyargs)]
    )
    definition = writer.visit(definition)
    if not writer.changed:
        return None
    names = list(function.__code__.co_freevars)
    outer = ast.FunctionDef(
        "__rnncore_outer", ast.arguments([], [ast.arg(n) for n in names], None, [], [], None, []), [], []
    )
    definition.args.defaults, definition.args.kw_defaults = [], [None] * len(definition.args.kwonlyargs)
    outer.body = [definition, ast.Return(ast.Name(definition.name, ast.Load()))]
    tree.body = [outer]
    ast.increment_lineno(ast.fix_missing_locations(tree), start - 1)
    code = compile(tree, function.__code__.co_filename, "exec")
    inner = next(c for c in code.co_consts if inspect.iscode(c))
    own = next(c for c in inner.co_consts if inspect.iscode(c) and c.co_name == definition.name)
    cells = dict(zip(names, function.__closure__ or (), strict=True))
    made = FunctionType(
        own,
        {**function.__globals__, **_HELPERS},
        function.__name__,
        function.__defaults__,
        tuple(cells[name] for name in own.co_freevars),
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


class _Writer(ast.NodeTransformer):
    """Writes one function anew.  ``changed``: whether something in it goes both ways now."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.changed = False
        self._arguments, self._steps, self._count = {*arguments}, set[str](), 0

    def visit_For(self, node: ast.For) -> Any:
        """A loop: the number of its turn is known inside."""
        before = set(self._steps)
        if isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Name):
            target = node.target
            if node.iter.func.id == "enumerate" and isinstance(target, ast.Tuple):
                target = target.elts[0]
            if node.iter.func.id in ("range", "enumerate") and isinstance(target, ast.Name):
                self._steps.add(target.id)
        self.generic_visit(node)
        self._steps = before
        return node

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        """A value that the number of the step decides."""
        self.generic_visit(node)
        test = self._test(node.test)
        if test is None:
            return node
        self.changed = True
        return ast.copy_location(_call(_CHOOSE, test, node.body, node.orelse), node)

    def visit_If(self, node: ast.If) -> Any:
        """Two ways between which the number of the step decides."""
        self.generic_visit(node)
        test, names = self._test(node.test), _given([*node.body, *node.orelse])
        if test is None or not names:
            return node
        self.changed, self._count = True, self._count + 1
        own, before, first = sorted(names), f"__rnncore_before_{self._count}", f"__rnncore_first_{self._count}"
        test_name = f"__rnncore_test_{self._count}"
        written: list[ast.expr] = [ast.Constant(name) for name in own if names[name]]
        listed = ast.Tuple([ast.Constant(name) for name in own], ast.Load())

        def took(clone: bool) -> ast.expr:
            return _call(_TAKE, _call("locals"), listed, ast.Tuple(written if clone else [], ast.Load()))

        def names_are(value: ast.expr) -> ast.stmt:
            return ast.Assign([ast.Tuple([ast.Name(name, ast.Store()) for name in own], ast.Store())], value)

        loads = [ast.Name(name, ast.Load()) for name in (before, first, test_name)]
        made = [
            ast.Assign([ast.Name(test_name, ast.Store())], test),
            ast.Assign([ast.Name(before, ast.Store())], took(False)),
            names_are(took(True)),
            *node.body,
            ast.Assign([ast.Name(first, ast.Store())], took(False)),
            names_are(loads[0]),
            names_are(took(True)),
            *node.orelse,
            names_are(_call(_CHOOSE, loads[2], loads[1], took(False))),
        ]
        for statement in made:
            if not hasattr(statement, "lineno"):
                ast.copy_location(statement, node)
        made[-1].lineno = made[-1].end_lineno = node.end_lineno or node.lineno  # the first line is where a turn begins
        return [ast.fix_missing_locations(statement) for statement in made]

    def _test(self, test: ast.expr) -> ast.expr | None:
        """``test`` as one of tensors; None where it is no question about the number of a step."""
        names = {n.id for n in ast.walk(test) if isinstance(n, ast.Name)}
        divides = any(isinstance(n, ast.Mod) for n in ast.walk(test))
        steps = names & (self._steps | (self._arguments if divides else set()))
        parts = [n for n in ast.walk(test) if isinstance(n, ast.expr)]
        known = all(isinstance(n, _TEST) for n in parts) and all(
            isinstance(op, _COMPARED) for n in parts if isinstance(n, ast.Compare) for op in n.ops
        )
        single = all(len(n.ops) == 1 for n in parts if isinstance(n, ast.Compare))
        if not steps or not known or not single:
            return None
        return _of_tensors(test, steps)


def _of_tensors(node: ast.expr, steps: set[str]) -> ast.expr:
    """A question, with tensors in place of numbers of steps; of what stands in brackets these are numbers still."""
    match node:
        case ast.BoolOp():
            parts = [_of_tensors(part, steps) for part in node.values]
            return _call(_EVERY if isinstance(node.op, ast.And) else _EITHER, *parts)
        case ast.UnaryOp(op=ast.Not()):
            return _call(_NOT, _of_tensors(node.operand, steps))
        case ast.Compare():
            left, right = _number(node.left, steps), _number(node.comparators[0], steps)
            return ast.copy_location(ast.Compare(left, node.ops, [right]), node)
    return _call(_TRUE, _number(node, steps))


def _number(node: ast.expr, steps: set[str]) -> ast.expr:
    match node:
        case ast.Name():
            return _call(_STEP, node) if node.id in steps else node
        case ast.BinOp():
            made = ast.BinOp(_number(node.left, steps), node.op, _number(node.right, steps))
            return ast.copy_location(made, node)
        case ast.UnaryOp():
            return ast.copy_location(ast.UnaryOp(node.op, _number(node.operand, steps)), node)
    return node


def _given(statements: Sequence[ast.stmt]) -> dict[str, bool]:
    """Names that get values there, and whether parts of what they hold are written; empty where anything else is done."""
    names: dict[str, bool] = {}
    for statement in statements:
        match statement:
            case ast.Pass():
                continue
            case ast.If():
                more = _given([*statement.body, *statement.orelse])
                if not more:
                    return {}
                found = list(more.items())
            case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                parts = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple | ast.List) else [t])]
                found = [_named(part, isinstance(statement, ast.AugAssign)) for part in parts]
            case _:
                return {}
        for name, written in found:
            if not name:
                return {}
            if name.startswith(_OURS):  # of an inner question
                continue
            names[name] = names.get(name, False) or written
    return names


def _named(target: ast.expr, adds: bool) -> tuple[str, bool]:
    if isinstance(target, ast.Name):
        return target.id, adds
    if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
        return target.value.id, True
    return "", False


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


# What the functions that are written call.


def _step(number: Any) -> Any:
    return torch.tensor(number) if type(number) is int else number


def _true(value: Any) -> Any:
    return value != 0 if isinstance(value, Tensor) and value.dtype != torch.bool else value


def _take(known: dict[str, Any], names: Sequence[str], written: Sequence[str]) -> tuple[Any, ...]:
    """What names hold; of those in which something is written, copies."""
    return tuple(_copied(known.get(n, _UNBOUND)) if n in written else known.get(n, _UNBOUND) for n in names)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return list(value) if type(value) is list else dict(value) if type(value) is dict else value


def _choose(test: Any, first: Any, second: Any) -> Any:
    """What ``first`` holds where ``test`` is true, else what ``second`` does.

    Raises:
        TypeError: they hold what cannot be chosen from.
    """
    if first is second or second is _UNBOUND:
        return first
    if first is _UNBOUND:
        return second
    if not isinstance(test, Tensor):
        return first if test else second
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.where(test, first, second)
    if isinstance(first, tuple | list) and type(first) is type(second) and len(first) == len(second):
        return type(first)([_choose(test, a, b) for a, b in zip(first, second, strict=True)])
    if type(first) is type(second) and isinstance(first, int | float | str | bool) and first == second:
        return first
    raise TypeError(f"no choice between a {type(first).__name__} and a {type(second).__name__}")


def _joined(every: bool, *parts: Any) -> Any:
    tensors = [part for part in parts if isinstance(part, Tensor)]
    numbers = [bool(part) for part in parts if not isinstance(part, Tensor)]
    if not tensors or (numbers and (not all(numbers) if every else any(numbers))):
        return all(numbers) if every else any(numbers)
    value = tensors[0]
    for other in tensors[1:]:
        value = value & other if every else value | other
    return value


_HELPERS: dict[str, Any] = {
    _STEP: _step,
    _TRUE: _true,
    _TAKE: _take,
    _CHOOSE: _choose,
    _EVERY: lambda *parts: _joined(True, *parts),
    _EITHER: lambda *parts: _joined(False, *parts),
    _NOT: lambda value: ~value if isinstance(value, Tensor) else not value,
}
