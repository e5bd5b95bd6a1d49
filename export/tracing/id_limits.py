"""Which ids a module takes, and that no other is ever looked up.

Where ids are looked up as they come, or shifted, scaled and reshaped on the way, the tables' sizes tell the smallest and
largest id of the input, and the runtime refuses others.  Where more is done to them (masks, parts, floats made integers)
PyTorch still refuses what falls out of a table, but onnxruntime reads negative places from a table's end: there a check is
written into the graph, which makes a negative place one beyond every table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._functorch import get_unwrapped, is_batchedtensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from rnncore.export.tracing.value_ranges import SAME_VALUES, Range, ValueRanges, held_by, is_integer, operator_name

_TABLE_FIRST = frozenset({"embedding", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"})
_ALONG_AXIS = frozenset(
    {"index_select", "gather", "scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_fill"}
)
NO_END = 2**63 - 1


@dataclass(frozen=True)
class LookUp:
    """One use of ids: in ``node`` the value ``ids`` must lie in ``range``.

    silent: the operator gives something for every id, so falling out must be made an error.  wraps: PyTorch too counts
    negative ids from the end, so that no check is needed; only ids that come as they are must not.
    """

    node: Node
    ids: Node
    range: Range
    silent: bool = False
    wraps: bool = False


def limit_ids(program: ExportedProgram, inputs: int, lengths: int | None = None) -> dict[int, Range]:
    """Find the limits of inputs, and write checks into ``program``, in place, for all that they leave open.

    Nothing changes in a program whose ids are looked up as they come.

    Args:
        program: the trace.
        inputs: its last placeholders, so many, are values that the runtime checks.
        lengths: the one among these that holds lengths, which the runtime checks to be lengths.  A place that is computed
            from them (``lengths - 1``) is taken to exist: that of a row without steps is nobody's.

    Returns:
        Smallest and largest id by position among these inputs, for those that have limits.
    """
    nodes = list(program.graph.nodes)
    for (
        node
    ) in nodes:  # what torch.vmap has touched, the steps of a rolled loop, may still be marked as one row of many
        if isinstance(node.meta.get("val"), torch.Tensor) and is_batchedtensor(node.meta["val"]):
            node.meta["val"] = get_unwrapped(node.meta["val"])
    placeholders = [node for node in nodes if node.op == "placeholder"]
    own = placeholders[len(placeholders) - inputs :] if inputs else []
    constants = _constants(program, placeholders)
    found = list(_look_ups(nodes, constants))
    given = {} if lengths is None else {own[lengths]: (1, 2**62)}
    finder = _Finder([node for node in own if node not in given], ValueRanges(given, constants))
    for use in found:
        finder.require(use.ids, use.range)
    limits = {
        node: (max(low, held_by(node)[0]), min(high, held_by(node)[1])) for node, (low, high) in finder.found.items()
    }
    limits = {node: limit for node, limit in limits.items() if limit != held_by(node)}
    ranges = ValueRanges({**limits, **given}, constants)
    checked: dict[tuple[Node, int | None], Node] = {}
    for use in found:
        low, high = ranges.of(use.ids)
        if use.wraps or (low >= use.range[0] and (high <= use.range[1] or not use.silent)):
            continue
        size = use.range[1] + 1 if use.silent else None
        key = (use.ids, size)
        if key not in checked:
            checked[key] = _check(program.graph, use, size)
        use.node.replace_input_with(use.ids, checked[key])
    if checked:
        program.graph_module.recompile()
    return {own.index(node): limit for node, limit in limits.items()}


class _Finder:
    """Follows what is required of a looked-up value back to the inputs."""

    def __init__(self, inputs: Sequence[Node], constants: ValueRanges) -> None:
        self.inputs = frozenset(inputs)
        self.found: dict[Node, Range] = {}
        self._constants = constants

    def require(self, value: Any, needed: Range) -> None:
        """Every element of ``value`` must lie in ``needed``, or PyTorch raises."""
        if not isinstance(value, Node) or not is_integer(value):
            return
        low, high = self._constants.of(value)
        if needed[0] <= low and high <= needed[1]:
            return
        if value in self.inputs:
            before = self.found.get(value, held_by(value))
            self.found[value] = max(before[0], needed[0]), min(before[1], needed[1])
        elif value.op == "call_function":
            self._through(value, operator_name(value), needed)

    def _through(self, node: Node, name: str, needed: Range) -> None:
        args = node.args
        if name in SAME_VALUES or name in ("to", "_to_copy", "type_as"):
            self.require(args[0], needed)
        elif name in ("cat", "concat", "stack") and isinstance(args[0], list | tuple):
            for part in args[0]:
                self.require(part, needed)
        elif name == "constant_pad_nd" and all(isinstance(n, int) and n >= 0 for n in args[1]):  # type: ignore[union-attr]
            self.require(args[0], needed)
        elif name in ("clamp", "clip") and all(number is None or isinstance(number, int) for number in args[1:]):
            self._clamped(args, needed)
        elif len(args) == 2 and node.kwargs.get("alpha", 1) == 1:
            self._arithmetic(name, args[0], args[1], needed)
        elif name == "neg":
            self.require(args[0], (-needed[1], -needed[0]))

    def _clamped(self, args: Sequence[Any], needed: Range) -> None:
        least, most = (*args[1:], None, None)[:2]
        low, high = needed
        if (least is None or least <= high) and (most is None or most >= low):
            free_below, free_above = least is not None and least >= low, most is not None and most <= high
            self.require(args[0], (-(2**63) if free_below else low, NO_END if free_above else high))

    def _arithmetic(self, name: str, left: Any, right: Any, needed: Range) -> None:
        (a, a_end), (b, b_end) = self._constants.of(left), self._constants.of(right)
        low, high = needed
        if b == b_end:
            inner = _before(name, b, needed)
            if inner is not None:
                self.require(left, inner)
        elif a == a_end and name in ("add", "mul"):
            inner = _before(name, a, needed)
            if inner is not None:
                self.require(right, inner)
        elif a == a_end and name == "sub":
            self.require(right, (a - high, a - low))


def _before(name: str, number: int, needed: Range) -> Range | None:
    """What x must be for ``x <name> number`` to lie in ``needed``; None if that is no range."""
    low, high = needed
    if name == "add":
        return low - number, high - number
    if name == "sub":
        return low + number, high + number
    if name == "rsub":
        return number - high, number - low
    if name == "mul" and number > 0:
        return -(-low // number), high // number
    if name == "mul" and number < 0:
        return -(-high // number), low // number
    if name == "floor_divide" and number > 0:
        return low * number, high * number + number - 1
    # The larger of both: only what is above can be too large, and it is that of x where it is.
    if name in ("clamp_min", "maximum") and low <= number <= high:
        return -(2**63), high
    if name in ("clamp_max", "minimum") and low <= number <= high:
        return low, NO_END
    return None


def _look_ups(nodes: Sequence[Node], constants: Mapping[Node, Any]) -> Iterator[LookUp]:
    fixed = _fixed(nodes, constants)
    for node in nodes:
        if node.op != "call_function":
            continue
        name, args = operator_name(node), node.args
        if name in _TABLE_FIRST:
            yield from _look_up(node, args[1], _size(args[0], 0))
        elif name in _ALONG_AXIS and isinstance(args[1], int):
            yield from _look_up(node, args[2], _size(args[0], args[1]))
        elif name == "one_hot" and len(args) > 1 and isinstance(args[1], int) and args[1] > 0:
            yield from _look_up(node, args[0], args[1], silent=True)
        elif name == "index" and args[0] in fixed and isinstance(args[1], list | tuple):
            for axis, ids in enumerate(args[1]):
                if is_integer(ids) and ids.meta["val"].dtype not in (torch.bool, torch.uint8):
                    yield from _look_up(node, ids, _size(args[0], axis), wraps=True)


def _look_up(node: Node, ids: Any, size: int | None, *, silent: bool = False, wraps: bool = False) -> Iterator[LookUp]:
    if isinstance(ids, Node) and is_integer(ids):
        yield LookUp(node, ids, (0, NO_END if size is None else size - 1), silent, wraps)


def _size(value: Any, axis: int) -> int | None:
    """Entries along an axis, None where that is not fixed."""
    shape = value.meta["val"].shape
    size = shape[axis] if len(shape) else 1
    return size if isinstance(size, int) else None


def _constants(program: ExportedProgram, placeholders: Sequence[Node]) -> dict[Node, torch.Tensor]:
    """Tensors of the placeholders that are no inputs of the user's."""
    found = {}
    named = {node.name: node for node in placeholders}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT or spec.target is None:
            continue
        tensor = program.state_dict.get(spec.target, program.constants.get(spec.target))
        if isinstance(tensor, torch.Tensor):
            found[named[spec.arg.name]] = tensor
    return found


def _fixed(nodes: Sequence[Node], constants: Mapping[Node, Any]) -> set[Any]:
    """Nodes whose values depend on constants only."""
    fixed = set(constants)
    for node in nodes:
        if node.op == "call_function" and node.all_input_nodes and fixed.issuperset(node.all_input_nodes):
            fixed.add(node)
    return fixed


def _check(graph: torch.fx.Graph, use: LookUp, size: int | None) -> Node:
    """A node before ``use`` that is its ids, but beyond every table where they are negative.

    size: of an operator that is silent; then falling out, at either end, is made an error by reading a table of that size.
    """
    ids, aten = use.ids, torch.ops.aten
    shown = ids.meta["val"]
    with graph.inserting_before(use.node):
        below = _new(graph, aten.lt.Scalar, (ids, 0), shown < 0, ids)
        beyond = min(NO_END, torch.iinfo(shown.dtype).max)
        checked = _new(graph, aten.masked_fill.Scalar, (ids, below, beyond), shown, ids)
        if size is None:
            return checked
        mode = shown.fake_mode
        with mode:
            places = torch.arange(size)
        table = _new(
            graph, aten.arange.default, (size,), places, ids, {"device": torch.device("cpu"), "pin_memory": False}
        )
        return _new(graph, aten.index.Tensor, (table, [checked]), shown, ids)


def _new(
    graph: torch.fx.Graph,
    target: Any,
    args: tuple[Any, ...],
    value: Any,
    like: Node,
    kwargs: Mapping[str, Any] | None = None,
) -> Node:
    node = graph.call_function(target, args, dict(kwargs or {}))
    node.meta = {
        "val": value,
        **{key: like.meta[key] for key in ("stack_trace", "nn_module_stack") if key in like.meta},
    }
    return node
