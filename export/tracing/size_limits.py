"""Numbers in a traced program at which its answers may change: guards on sizes, and constants that meet an axis.

A trace is made at one size.  Where ``forward`` asks for a size (``if x.shape[1] > 100``, ``x[:, :100]``), torch goes the way
of that size and writes the condition down as a guard; where an operation reaches a fixed number of steps (a pad, a dilated
kernel, a lag, ``arange(T) >= 20``), the number stands in the program.  Verification reads both and tries sizes on both
sides, see :mod:`rnncore.export.verification.sizes`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from rnncore.export.tracing.size_expressions import computed
from rnncore.export.tracing.source_lines import line_of_frame, line_of_node
from rnncore.export.tracing.torch_versions import chooses_kernel

Sizes = Mapping[str, int]
Symbols = Mapping[Any, str]
"""The axis that each symbol in sizes of a program stands for."""

SMALLEST = 3
"""Numbers below are met by the sizes that are always tried."""

_FAR = 1 << 40  # where a slice says "to the end"
_FIRST_SIZES = 64  # each is tried as a size in search of the place where a guard turns
_POSITIONS = ("arange", "ones", "zeros", "full", "linspace", "scalar_tensor")
_COMPARE = ("ge", "gt", "le", "lt", "eq", "ne", "clamp", "clamp_min", "clamp_max", "minimum", "maximum", "where")
_COUNTS = ("add", "sub", "rsub", "mul", "div", "remainder", "fmod", "floor_divide", "pow")
_FILLS = ("pad", "constant_pad_nd", "reflection_pad1d", "replication_pad1d")


@dataclass(frozen=True)
class Number:
    """A constant that meets an axis: an answer may change where the size of ``axis`` passes ``value``.

    reaches: an answer may depend on what was ``value`` steps ago.
    """

    axis: str
    value: int
    where: str
    reaches: bool = True


@dataclass(frozen=True)
class Guard:
    """A condition on sizes under which the trace holds, such as ``time <= 100``.

    holds: whether it is true of given sizes.  where: the line that asked, empty where torch does not know.  own: that line
    is the user's, not one of torch.  numbers: those in the condition.  differ: it is that two sizes are not equal.
    """

    text: str
    where: str
    own: bool
    axes: tuple[str, ...]
    numbers: tuple[int, ...]
    holds: Callable[[Sizes], bool]
    differ: bool = False

    def turns(self, axis: str, others: Sizes, most: int) -> list[int]:
        """Sizes of ``axis``, up to ``most``, that are the first after the condition changed."""
        near = {n + i for n in self.numbers for i in (-1, 0, 1)} | {1 << k for k in range(most.bit_length())}
        tried = sorted(n for n in {*range(1, _FIRST_SIZES), *near, most} if 1 <= n <= most)
        return [
            self._between(axis, others, low, high)
            for low, high in itertools.pairwise(tried)
            if self._at(axis, others, low) != self._at(axis, others, high)
        ]

    def _between(self, axis: str, others: Sizes, low: int, high: int) -> int:
        first = self._at(axis, others, low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._at(axis, others, middle) == first else (low, middle)
        return high

    def _at(self, axis: str, others: Sizes, size: int) -> bool:
        return self.holds({**others, axis: size})


@dataclass(frozen=True)
class SizeLimits:
    """All that a program says about sizes.

    reach: how many steps back an answer may depend on, at most, as far as the program shows: the sum of the ``numbers`` along
    time that reach back, each as often as it stands there.
    """

    guards: tuple[Guard, ...] = ()
    numbers: tuple[Number, ...] = ()
    reach: int = 0


def find_size_limits(program: ExportedProgram, symbols: Symbols, time: str) -> SizeLimits:
    """Read ``program``; ``time`` is the name of the axis along which steps follow each other."""
    reader = _Reader(program, symbols)
    numbers = [number for node in program.graph.nodes for number in reader.numbers(node)]
    reach = sum(number.value for number in numbers if number.axis == time and number.reaches)
    return SizeLimits(tuple(_guards(program, symbols, numbers)), tuple(dict.fromkeys(numbers)), reach)


def _guards(program: ExportedProgram, symbols: Symbols, numbers: Sequence[Number]) -> Iterator[Guard]:
    for environment in _environments(program):
        for guard in environment.guards:
            expression = guard.expr
            free = expression.free_symbols
            if not free or not free <= set(symbols) or chooses_kernel(expression):
                continue
            axes = tuple(sorted({symbols[symbol] for symbol in free}))
            inside = tuple(sorted({abs(int(n)) for n in expression.atoms(sympy.Integer)}))
            where, own = line_of_frame(guard.sloc.framework_loc)
            if not own:  # a slice, say: the line that has the number, or the table of that size
                where = next((n.where for n in numbers if n.axis in axes and n.value in inside), "")
                where = where or _line_of_table(program, inside)
            yield Guard(
                _text(expression, symbols),
                where,
                own or bool(where),
                axes,
                inside,
                _condition(expression, symbols),
                isinstance(expression, sympy.Ne),
            )


def _line_of_table(program: ExportedProgram, sizes: Sequence[int]) -> str:
    """The line that reads a constant which has one of ``sizes`` along some axis."""
    for node in program.graph.nodes:
        read = [size for source in node.all_input_nodes if source.op == "placeholder" for size in _shape(source)]
        if any(isinstance(size, int) and size >= SMALLEST and size in sizes for size in read):
            return line_of_node(node)
    return ""


def _environments(program: ExportedProgram) -> list[Any]:
    """What torch knows about the sizes of the inputs; one, as a rule."""
    sizes: list[Any] = [size for node in program.graph.nodes if node.op == "placeholder" for size in _shape(node)]
    found = {id(size.node.shape_env): size.node.shape_env for size in sizes if isinstance(size, torch.SymInt)}
    return list(found.values())


def _condition(expression: Any, symbols: Symbols) -> Callable[[Sizes], bool]:
    compute = computed(expression)

    def holds(sizes: Sizes) -> bool:
        values = {s: sizes[symbols[s]] for s in expression.free_symbols}
        try:
            return bool(compute(values))
        except (AssertionError, ZeroDivisionError):  # negative sizes, parts of nothing: the module takes no such size
            return False

    return holds


def _text(expression: Any, symbols: Symbols) -> str:
    named = expression.xreplace({s: sympy.Symbol(symbols[s], integer=True) for s in expression.free_symbols})
    return str(getattr(named, "canonical", named))


class _Reader:
    """Reads the numbers of one program."""

    def __init__(self, program: ExportedProgram, symbols: Symbols) -> None:
        self._symbols = symbols
        self._constants = _small_constants(program)
        self._positions: set[Node] = set()  # values that depend on sizes only, such as arange(T)

    def numbers(self, node: Node) -> Iterator[Number]:
        """Every number of ``node`` that meets an axis with a name."""
        if node.op != "call_function":
            return
        name = _name(node)
        if _is_position(node, name, self._positions, self._constants):
            self._positions.add(node)
        found = dict.fromkeys(self._in_sizes(node), False) | dict.fromkeys(self._compared(node, name), False)
        found |= dict.fromkeys(self._reaching(node, name), True)
        for (axis, value), reaches in found.items():
            if SMALLEST <= abs(value) < _FAR:
                yield Number(axis, abs(value), line_of_node(node), reaches)

    def _reaching(self, node: Node, name: str) -> Iterator[tuple[str, int]]:
        if name in ("slice", "select", "narrow", "split", "split_with_sizes", "unfold", "index_select"):
            dim = int(_argument(node, "dim", _argument(node, "dimension", 0)))
            yield from self._along(
                node, dim, [a for key, a in _arguments(node) if key not in ("dim", "dimension", "self")]
            )
        elif name.startswith("conv") or "_pool" in name:
            yield from self._windows(node, name)
        elif name in _FILLS:
            widths = _argument(node, "pad", _argument(node, "padding", ()))
            for i in range(0, len(widths), 2):
                yield from self._along(node, -1 - i // 2, widths[i : i + 2])
        elif name == "roll":
            shifts, dims = (_list(_argument(node, key, ())) for key in ("shifts", "dims"))
            for shift, dim in zip(shifts, dims, strict=False):
                yield from self._along(node, dim, [shift])
        elif name in ("cat", "concat"):
            parts, dim = _argument(node, "tensors", ()), int(_argument(node, "dim", 0))
            sizes = [shape[dim] for shape in map(_shape, parts) if len(shape) > dim >= -len(shape)]
            for axis in dict.fromkeys(axis for size in sizes for axis in self._axes_of(size)):
                yield from ((axis, size) for size in sizes if isinstance(size, int))
        elif name in (*_COMPARE, *_COUNTS, *_POSITIONS):
            yield from self._counted(node)

    def _along(self, node: Any, dim: int, values: Sequence[Any]) -> Iterator[tuple[str, int]]:
        """Integers among ``values`` for the axes that the input of ``node`` has at ``dim``."""
        source = node.args[0] if node.args and isinstance(node.args[0], Node) else node
        shape = _shape(source)
        if not shape:
            return
        for axis in self._axes_of(shape[dim]):
            for value in values:
                if isinstance(value, int) and not isinstance(value, bool):
                    yield axis, value

    def _windows(self, node: Node, name: str) -> Iterator[tuple[str, int]]:
        """How far the kernels of a convolution or a pool reach along each axis, and how far they pad it."""
        shape = _shape(node.args[0])
        kernel = _shape(node.args[1])[2:] if name.startswith("conv") else _list(_argument(node, "kernel_size", ()))
        if name.startswith("adaptive") or not shape or not kernel:
            return
        for i in range(len(kernel)):
            dilation, padding = (_at(_argument(node, key, 1 - j), i) for j, key in enumerate(("dilation", "padding")))
            reach = (int(kernel[i]) - 1) * (dilation if isinstance(dilation, int) else 1)
            for axis in self._axes_of(shape[len(shape) - len(kernel) + i]):
                yield axis, reach
                if isinstance(padding, int) and padding > reach:
                    yield axis, padding

    def _counted(self, node: Node) -> Iterator[tuple[str, int]]:
        """What positions in a sequence are compared with or counted by."""
        if node in self._positions or any(a in self._positions for a in node.all_input_nodes):
            for axis, number in self._numbers_beside(node):
                yield axis, math.ceil(abs(number))
                if 0 < abs(number) < 1:
                    yield axis, math.ceil(1 / abs(number))

    def _compared(self, node: Node, name: str) -> Iterator[tuple[str, int]]:
        """What whole numbers are compared with: they may be counts of steps."""
        tensors = [a.meta["val"] for a in node.all_input_nodes if isinstance(a.meta.get("val"), torch.Tensor)]
        if name in _COMPARE and any(not tensor.is_floating_point() for tensor in tensors):
            yield from ((axis, math.ceil(abs(number))) for axis, number in self._numbers_beside(node))

    def _numbers_beside(self, node: Node) -> Iterator[tuple[str, float]]:
        """Numbers that an operation on tensors takes, for each axis of these tensors."""
        if not isinstance(node.meta.get("val"), torch.Tensor):
            return
        axes = {axis for a in (node, *node.all_input_nodes) for size in _shape(a) for axis in self._axes_of(size)}
        numbers = [a for key, a in _arguments(node) if key not in ("dim", "self", "size", "dtype")]
        numbers += [n for a in node.all_input_nodes for n in self._constants.get(a.name, ())]
        for axis, number in itertools.product(sorted(axes), numbers):
            if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
                yield axis, number

    def _in_sizes(self, node: Node) -> Iterator[tuple[str, int]]:
        """Numbers in the sizes of what ``node`` gives, such as the 20 of ``time + 20``."""
        value = node.meta.get("val")
        for size in value.shape if isinstance(value, torch.Tensor) else [value]:
            if isinstance(size, torch.SymInt) and not size.node.expr.is_Symbol:
                for axis, number in itertools.product(self._axes_of(size), size.node.expr.atoms(sympy.Integer)):
                    yield axis, int(number)

    def _axes_of(self, size: Any) -> list[str]:
        if not isinstance(size, torch.SymInt):
            return []
        return sorted({self._symbols[s] for s in size.node.expr.free_symbols if s in self._symbols})


def _is_position(node: Node, name: str, known: set[Node], constants: Mapping[str, Any]) -> bool:
    if not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    if name in _POSITIONS or name.startswith("new_") or name.endswith("_like"):
        return True
    tensors = [a for a in node.all_input_nodes if isinstance(a.meta.get("val"), torch.Tensor)]
    return any(a in known for a in tensors) and all(a in known or a.name in constants for a in tensors)


def _small_constants(program: ExportedProgram, most: int = 64) -> dict[str, list[float]]:
    """Numbers of buffers and constants so small that they may be thresholds, by the name of their node."""
    signature = program.graph_signature
    tensors = {**program.constants, **program.state_dict}
    kept = {}
    for name, target in {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}.items():
        tensor = tensors.get(target)
        if isinstance(tensor, torch.Tensor) and tensor.numel() <= most and not tensor.is_complex():
            kept[name] = [float(n) for n in tensor.detach().double().flatten().tolist()]
    return kept


def _name(node: Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0].lstrip("_")


def _shape(value: Any) -> Sequence[Any]:
    tensor = value.meta.get("val") if isinstance(value, Node) else None
    return tensor.shape if isinstance(tensor, torch.Tensor) else ()


def _arguments(node: Node) -> list[tuple[str, Any]]:
    """Arguments of an operator with the names that its schema gives them, those in lists one by one."""
    schema = getattr(node.target, "_schema", None)
    names = [a.name for a in schema.arguments] if schema is not None else [""] * len(node.args)
    pairs = [*zip(names, node.args, strict=False), *node.kwargs.items()]
    return [(key, item) for key, value in pairs for item in _list(value)]


def _argument(node: Node, name: str, default: Any) -> Any:
    if name in node.kwargs:
        return node.kwargs[name]
    schema = getattr(node.target, "_schema", None)
    for i, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.name == name:
            found = node.args[i] if i < len(node.args) else argument.default_value
            return default if found is None else found
    return default


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _at(values: Any, index: int) -> Any:
    items = _list(values)
    return items[min(index, len(items) - 1)] if items else 0
