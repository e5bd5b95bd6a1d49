"""What in a traced module looks along the time axis: named, so that a refusal to stream can say where to look.

Nothing here proves anything: the exporter feeds the file in chunks and compares.  When that fails, this says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from rnncore.conversion import ConvertedLayer
from rnncore.layers import RecurrentLayer

Rule = Callable[[torch.fx.Node, "TimeAxes"], str]
CONVOLUTION = "use rnncore.CausalConv1d, which looks at the past only and carries it"


class TimeAxes:
    """Which axes of the values of a program run along time: those whose size depends on a symbol in ``symbols``."""

    def __init__(self, symbols: set[Any]) -> None:
        self.symbols = symbols

    def of(self, value: Any) -> list[int]:
        """Axes along time of the tensor that a node gives."""
        tensor = value.meta.get("val") if isinstance(value, torch.fx.Node) else None
        if not isinstance(tensor, torch.Tensor):
            return []
        return [axis for axis, size in enumerate(tensor.shape) if self.depends(size)]

    def depends(self, size: Any) -> bool:
        """Whether a size depends on the number of time steps."""
        return isinstance(size, torch.SymInt) and bool(size.node.expr.free_symbols & self.symbols)


def find_time_operators(program: ExportedProgram, module: nn.Module, symbols: set[Any], prefix: str) -> list[str]:
    """One line for every operation of ``program`` that mixes time steps, such as ``conv: Conv1d with kernel 5 over time``.

    Args:
        program: the trace.
        module: the user's module, whose paths and class names the lines use.
        symbols: of the time axis, as they appear in sizes of the program.
        prefix: path of ``module`` inside what was traced.
    """
    axes = TimeAxes(symbols)
    found: dict[str, None] = {}  # in order, each once
    own = {path for path, part in module.named_modules() if isinstance(part, RecurrentLayer | ConvertedLayer)}
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        what = _describe(node, axes)
        path = _path(node, prefix)
        if not what or any(path == p or path.startswith(f"{p}.") for p in own if p):
            continue
        try:
            name = type(module.get_submodule(path)).__name__
        except AttributeError:
            name = "call"
        if path and any(line.startswith(f"{path}: ") for line in found):
            continue  # the first thing that a part does says enough
        found[f"{path}: {name} {what}" if path else f"{name}.forward {what}"] = None
    return list(found)


def _path(node: torch.fx.Node, prefix: str) -> str:
    """Path, in the user's module, of the module whose forward made ``node``."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(next(reversed(stack.values()))[0]) if stack else ""
    path = path.partition("@")[0]  # a second call of one module is <path>@1
    return "" if path == prefix else path.removeprefix(f"{prefix}.")


def _describe(node: torch.fx.Node, axes: TimeAxes) -> str:
    name = str(node.target).removeprefix("aten.").partition(".")[0].lstrip("_")
    for rule in (_convolution, _pooling, _along, _attention, _padding):
        what = rule(name, node, axes)
        if what:
            return what
    return ""


def _convolution(name: str, node: torch.fx.Node, axes: TimeAxes) -> str:
    if not name.startswith("conv") or len(node.args) < 2:
        return ""
    kernel = _shape(node.args[1])[2:]
    for axis, size in zip(_last(node.args[0], len(kernel)), kernel, strict=False):
        if axis in axes.of(node.args[0]) and size != 1:
            return f"with kernel {size} over the time axis ({CONVOLUTION})"
    return ""


def _pooling(name: str, node: torch.fx.Node, axes: TimeAxes) -> str:
    if name == "im2col":  # nn.Unfold and functional.unfold
        return "takes windows over the time axis" if set(_last(node.args[0], 2)) & set(axes.of(node.args[0])) else ""
    if "_pool" not in name:
        return ""
    spatial = int(next(c for c in name if c.isdigit()))
    return "pools over the time axis" if set(_last(node.args[0], spatial)) & set(axes.of(node.args[0])) else ""


REDUCTIONS: tuple[str, ...] = (
    "mean",
    "sum",
    "prod",
    "max",
    "min",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "std",
    "var",
    "median",
)
REDUCTIONS += ("mode", "logsumexp", "any", "all", "norm")
MIXTURES: tuple[str, ...] = (
    "softmax",
    "log_softmax",
    "cumsum",
    "cumprod",
    "cummax",
    "cummin",
    "logcumsumexp",
    "flip",
    "roll",
    "sort",
)
MIXTURES += ("topk", "unfold", "diff")


def _along(name: str, node: torch.fx.Node, axes: TimeAxes) -> str:
    """Reductions, and operators that mix steps along ``dim``."""
    timed = axes.of(node.args[0]) if node.args else []
    if not timed:
        return ""
    if name in ("layer_norm", "native_layer_norm"):
        normalized = len(node.args[1]) if isinstance(node.args[1], Sequence) else 1
        return "normalises over the time axis" if set(_last(node.args[0], normalized)) & set(timed) else ""
    if name in ("group_norm", "native_group_norm", "instance_norm"):
        return "normalises over the time axis" if any(axis >= 2 for axis in timed) else ""
    if name in ("batch_norm", "native_batch_norm_legit") and _argument(node, "training", False):
        return "normalises over the batch and the time axis"
    if name not in REDUCTIONS and name not in MIXTURES:
        return ""
    rank = len(_shape(node.args[0]))
    where = {"flip": "dims", "roll": "dims", "unfold": "dimension"}.get(name, "dim")
    if isinstance(_argument(node, "other", None), torch.fx.Node):  # max(a, b) of two tensors: step by step
        return ""
    chosen = _argument(node, where, None)
    dims = range(rank) if chosen is None or chosen == [] else chosen if isinstance(chosen, Sequence) else [chosen]
    return f"computes {name} over the time axis" if {int(d) % rank for d in dims} & set(timed) else ""


def _attention(name: str, node: torch.fx.Node, axes: TimeAxes) -> str:
    """Products summed over time: attention and whatever is like it."""
    if name == "scaled_dot_product_attention":
        return "attends over the time axis" if _contracted(node.args[1], 2, axes) else ""
    if name in ("matmul", "bmm", "mm") and _contracted(node.args[0], 1, axes):
        return "multiplies and sums over the time axis, as attention does"
    return ""


def _padding(name: str, node: torch.fx.Node, axes: TimeAxes) -> str:
    if name not in ("pad", "constant_pad_nd", "reflection_pad1d", "replication_pad1d"):
        return ""
    widths = node.args[1]
    pairs = len(widths) // 2 if isinstance(widths, Sequence) else 0
    timed = axes.of(node.args[0])
    padded = [axis for i, axis in enumerate(reversed(_last(node.args[0], pairs))) if any(widths[2 * i : 2 * i + 2])]  # type: ignore[index, arg-type]
    return "pads the time axis, which in a stream happens to every chunk" if set(padded) & set(timed) else ""


def _contracted(value: Any, from_end: int, axes: TimeAxes) -> bool:
    return len(_shape(value)) - from_end in axes.of(value)


def _last(value: Any, count: int) -> list[int]:
    rank = len(_shape(value))
    return list(range(rank - count, rank))


def _shape(value: Any) -> Sequence[Any]:
    tensor = value.meta.get("val") if isinstance(value, torch.fx.Node) else None
    return tensor.shape if isinstance(tensor, torch.Tensor) else ()


def _argument(node: torch.fx.Node, name: str, default: Any) -> Any:
    """The argument of an operator by the name that its schema gives it."""
    if name in node.kwargs:
        return node.kwargs[name]
    arguments: Iterator[Any] = iter(node.target._schema.arguments)  # type: ignore[union-attr]
    for i, argument in enumerate(arguments):
        if argument.name == name:
            return node.args[i] if i < len(node.args) else argument.default_value
    return default
