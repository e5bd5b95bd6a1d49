"""The user's module as a main graph with placeholders, its inputs, outputs and free axes named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from rnncore.export.graph.exported_operators import mend_operators
from rnncore.export.tracing.call_counter import CallCounter
from rnncore.export.tracing.chosen_outputs import chosen_names
from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.counted_sizes import counts_as_sizes
from rnncore.export.tracing.example import Example, Extent
from rnncore.export.tracing.free_parts import count_ends_forwards
from rnncore.export.tracing.id_limits import limit_ids
from rnncore.export.tracing.longest_rows import LongestRow, longest_rows, take_marks
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.number_kinds import refuse_bfloat16
from rnncore.export.tracing.operators import Operators
from rnncore.export.tracing.packing import PaddedPacker, packing_by
from rnncore.export.tracing.randomness import refuse_random
from rnncore.export.tracing.recorder import DOMAIN, Call, PlaceholderRecorder, StreamingLayerCall
from rnncore.export.tracing.size_limits import SizeLimits, find_size_limits
from rnncore.export.tracing.time_operators import find_time_operators
from rnncore.export.tracing.torch_onnx import FIXES_AXIS, to_model, to_program
from rnncore.placeholder import recording
from rnncore.runtime.errors import ExportError
from rnncore.runtime.format.axes import BATCH, TIME, Steps, inner_shape

# Sizes of the traced call: different from each other, so that no two free axes are taken for one, and neither 0 nor 1,
# not even after a convolution over time that shortens it.  Axes beside batch and time have others.
TRACE_SIZES = {BATCH: 19, TIME: 31}
_OTHER_SIZES = (11, 7, 13, 17, 29, 23)
LIFTED_LENGTHS = "lengths"
NO_LAYER = "calls no recurrent layer (torch.nn.RNN/GRU/LSTM or rnncore's)"


# An axis that only happens to be free may be fixed by torch; batch and time must not.
_DEMANDED = {BATCH: torch.export.Dim.DYNAMIC, TIME: torch.export.Dim.DYNAMIC}


@dataclass(frozen=True)
class Trace:
    """A traced module: the graph, the recurrent calls in it, and the name of its lengths input.

    carried: calls of layers that have a state and no loop.  time_operators: what looks along the time axis, one line each.
    limits: what the program says about sizes.
    ids: smallest and largest id of inputs that are looked up in tables.  sizes: of the traced call, by axis.
    longest: where rows end with the longest of them, whose length the module computes.
    ``example`` has the axes that the graph turned out to have.
    """

    model: ir.Model
    example: Example
    calls: dict[str, Call]
    lengths: str | None
    lengths_lifted: bool
    carried: dict[str, StreamingLayerCall] = field(default_factory=dict)
    time_operators: list[str] = field(default_factory=list)
    limits: SizeLimits = field(default_factory=SizeLimits)
    ids: dict[str, tuple[int, int]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=lambda: TRACE_SIZES)
    longest: tuple[LongestRow, ...] = ()


class TracedModule(nn.Module):
    """The module with flat inputs, and lengths as one more input when they are lifted and it has none of its own."""

    def __init__(
        self, module: nn.Module, example: Example, recorder: PlaceholderRecorder, operators: Operators, lift: bool
    ) -> None:
        super().__init__()
        self.module = module
        self.operators = nn.ModuleList(operators.layers.values())  # so that their weights are parameters of the program
        self.example = example
        self.recorder = recorder
        self.lift = lift

    def forward(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """All outputs in the order in which they are nested."""
        tensors, lengths = flat, None
        if self.lift and self.example.lengths is not None:
            lengths = flat[self.example.names.index(self.example.lengths)].to(torch.int64)
        elif self.lift:
            tensors, lengths = flat[:-1], flat[-1]
        self.recorder.start(lengths, self._axes(tensors))
        with counts_as_sizes(self._counts(tensors)):
            outputs = list(named_tensors(self.example.call(self.module, tensors), ""))
        self.recorder.output_names = [name for name, _ in outputs]
        # An output that is an input, or listed twice, would be one ONNX value with two roles.
        seen: set[int] = {id(t) for t in flat}
        results = []
        for _, value in outputs:
            results.append(value.clone() if id(value) in seen else value)
            seen.add(id(value))
        return tuple(results)

    def _counts(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, Any]]:
        """Lengths and counts of the module itself, with the sizes of the axes that they count along."""
        sizes: dict[str, Any] = {}
        for own, tensor in zip(self.example.inputs, tensors, strict=True):
            sizes.update({axis: size for axis, size in zip(own.axes, tensor.shape, strict=True) if axis})
        along = {**self.example.counts, **({self.example.lengths: TIME} if self.example.lengths else {})}
        named = zip(self.example.names, tensors, strict=True)
        return [(tensor, sizes[along[name]]) for name, tensor in named if along.get(name) in sizes]

    def _axes(self, tensors: Sequence[Tensor]) -> dict[str, set[str]]:
        """How torch writes the sizes of the batch and time axes."""
        sizes: dict[str, set[str]] = {BATCH: set(), TIME: set()}
        for own, tensor in zip(self.example.inputs, tensors, strict=True):
            for role, size in zip(own.axes, tensor.shape, strict=True):
                if role in sizes:
                    sizes[role].add(str(size))
        return sizes


def trace(
    module: nn.Module,
    example: Example,
    operators: Operators,
    *,
    lift_lengths: bool,
    output_names: Sequence[str] | None,
    seed: int,
) -> Trace:
    """Trace ``module`` (its plain layers converted, in eval mode) at sizes of our own choice.

    ``operators`` answer its calls of torch's recurrent functions.

    Raises:
        ExportError: torch cannot trace it, it holds no recurrent layer, or it fixes its batch or time axis.
    """
    generator = torch.Generator().manual_seed(seed)
    others = [name for name in example.axis_names if name not in TRACE_SIZES]
    sizes = example.fit({**TRACE_SIZES, **dict(zip(others, _OTHER_SIZES, strict=False))})
    if example.trace_steps is not None:
        sizes = {**sizes, TIME: example.trace_steps}
    elif TIME in sizes:
        sizes = {**sizes, TIME: _below_most(example.extents.get(TIME, Extent(TIME)), sizes)}
    tensors = example.draw(sizes, generator)
    axes = [i.axes for i in example.inputs]
    names = example.names
    added = lift_lengths and example.lengths is None
    if added:
        if LIFTED_LENGTHS in names:
            raise ExportError(f"an input is called '{LIFTED_LENGTHS}' already; say lengths='{LIFTED_LENGTHS}' or False")
        tensors.append(torch.full((sizes[BATCH],), sizes.get(TIME, TRACE_SIZES[TIME]), dtype=torch.int64))
        axes.append((BATCH,))
        names = [*names, LIFTED_LENGTHS]
    recorder = PlaceholderRecorder(module, operators.layers)
    traced = TracedModule(module, example, recorder, operators, lift_lengths).eval()
    dynamic = (tuple({i: _DEMANDED.get(a, torch.export.Dim.AUTO) for i, a in enumerate(axis) if a} for axis in axes),)
    what, counter = type(module).__name__, CallCounter(module)
    standing_in = (recording(recorder), packing_by(PaddedPacker(mark=True)), operators.answering(), counter.counting())
    with unchanged(module), ExitStack() as stack:
        for context in standing_in:
            stack.enter_context(context)
        try:
            program = to_program(traced, tuple(tensors), dynamic, what=what)
        except ExportError as error:
            loop = counter.explain_loop(sizes.get(TIME, 0)) if FIXES_AXIS in str(error) else ""
            if not loop:
                raise
            raise ExportError(f"{what}: {loop}") from error
    refuse_random(program)
    refuse_bfloat16(program)
    time_operators = find_time_operators(program, module, _time_symbols(program, axes), "module")
    elsewhere = () if time_operators else _along_other_axes(program, module, axes)
    limits = find_size_limits(program, axes_of_symbols(program, axes), TIME)
    lengths = LIFTED_LENGTHS if added else example.lengths
    place = None if lengths is None else names.index(lengths)
    if any(guard.own and guard.differ for guard in limits.guards):
        count_ends_forwards(program)
    ids = {names[i]: limit for i, limit in limit_ids(program, len(axes), place).items()}
    model = to_model(program, what=what)
    mend_operators(model.graph)
    marks = take_marks(model.graph)
    recurs = recorder.calls or recorder.carried or counter.has_cells
    if not recurs and not time_operators and not _has_steps_of_its_own(example):
        raise ExportError(f"{type(module).__name__} {NO_LAYER}, and {_nothing_along_time(example, *elsewhere)}")
    if len(model.graph.inputs) != len(names):
        raise ExportError(f"torch.onnx kept {len(model.graph.inputs)} of the {len(names)} inputs {names}")
    for value, name in zip(model.graph.inputs, names, strict=True):
        value.name = name
    _name_outputs(model.graph, chosen_names(recorder.output_names, output_names), set(names))
    _strip_module_prefix(model.graph)
    _name_axes(model.graph, dict(zip(names, axes, strict=True)), lengths, probed=example.output_shapes is not None)
    takes_lengths = [call.lengths for call in recorder.calls.values()]
    takes_lengths += [call.lengths for call in recorder.carried.values()]
    used = lift_lengths and any(takes_lengths)
    if added and not used:
        model.graph.inputs.pop()
        lengths = None
    found = {str(v.name): _dims(v) for v in model.graph.inputs}
    inputs = tuple(replace(i, axes=_roles(i.axes, found[i.name])) for i in example.inputs)
    example = replace(example, inputs=inputs)
    calls, carried, longest = dict(recorder.calls), dict(recorder.carried), longest_rows(marks, example.counts)
    return Trace(model, example, calls, lengths, used, carried, time_operators, limits, ids, sizes, longest)


def _below_most(time: Extent, sizes: Mapping[str, int]) -> int:
    """Steps at which what is missing up to the most that there may be is neither nothing nor one, as torch asks for both."""
    if sizes[TIME] != time.maximum:
        return sizes[TIME]
    others = {size for axis, size in sizes.items() if axis != TIME}
    fewer = (sizes[TIME] - k * time.multiple for k in (2, 3, 4, 5))
    return next((n for n in fewer if time.takes(n) and n > 1 and n not in others), sizes[TIME])


def _time_symbols(program: ExportedProgram, axes: Sequence[Sequence[str | None]]) -> set[Any]:
    """Symbols of the time axis in sizes of ``program``, whose last inputs are those that have ``axes``."""
    return {symbol for symbol, axis in axes_of_symbols(program, axes).items() if axis == TIME}


def _along_other_axes(
    program: ExportedProgram, module: nn.Module, axes: Sequence[Sequence[str | None]]
) -> tuple[str, str] | tuple[()]:
    """(the first free axis beside batch and time that something looks along, what does)."""
    symbols = {symbol: axis for symbol, axis in axes_of_symbols(program, axes).items() if axis not in (BATCH, TIME)}
    for symbol, axis in symbols.items():
        found = find_time_operators(program, module, {symbol}, "module")
        if found:
            return axis, found[0].partition(" over the time axis")[0]
    return ()


def _nothing_along_time(example: Example, axis: str = "", what: str = "") -> str:
    if not axis:
        return "nothing in it looks along time: torch.onnx.export alone is enough for it"
    said = {own.name: tuple(TIME if role == axis else role for role in own.axes) for own in example.inputs}
    return f"no axis is taken for time; {what} looks along '{axis}': if that is time, say axes={said!r}"


def axes_of_symbols(program: ExportedProgram, axes: Sequence[Sequence[str | None]]) -> dict[Any, str]:
    """The axis that each symbol in sizes of the inputs stands for."""
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"][-len(axes) :]
    pairs = [pair for value, roles in zip(inputs, axes, strict=True) for pair in zip(value.shape, roles, strict=True)]
    own = [(size, role) for size, role in pairs if role and not isinstance(role, Steps)]
    return {size.node.expr: role for size, role in own if isinstance(size, torch.SymInt)}


def _roles(axes: Sequence[str | None], dims: Sequence[int | str]) -> tuple[str | None, ...]:
    free = [axis if not isinstance(dim, int) else None for axis, dim in zip(axes, dims, strict=True)]
    return tuple(
        axis if isinstance(axis, Steps) or axis is None else str(dim) for axis, dim in zip(free, dims, strict=True)
    )


def _has_steps_of_its_own(example: Example) -> bool:
    """Whether an output has another number of steps than goes in: ``torch.maximum(x[:, 1:], x[:, :-1])``."""
    sizes = [size for shape in example.output_shapes or () for size in inner_shape(shape)]
    return any(isinstance(size, Steps) and size.of == TIME for size in sizes)


def _name_outputs(graph: ir.Graph, names: list[str], taken: set[str]) -> None:
    used = set(taken)
    outputs = list(graph.outputs)
    for value in outputs:
        value.name = f"{value.name}/output"  # a name may be wanted by one output and still be another's
    for value, name in zip(outputs, names, strict=True):
        wanted = f"{name}_out" if name in taken else name
        value.name = next(new for i in count() if (new := f"{wanted}_{i}" if i else wanted) not in used)
        used.add(value.name)
    for value in [*_all_values(graph), *graph.initializers.values()]:
        if value.name in used and not value.is_graph_output() and not value.is_graph_input():
            value.name = f"{value.name}/inside"  # torch names values after operators, as modules do their outputs


def _strip_module_prefix(graph: ir.Graph) -> None:
    """Weights are named by their path in the user's module, not in the wrapper around it."""
    for value in list(graph.initializers.values()):
        if value.name and value.name.startswith("module."):
            value.name = value.name.removeprefix("module.")


def _name_axes(graph: ir.Graph, axes: dict[str, Sequence[str | None]], lengths: str | None, *, probed: bool) -> None:
    """Rename torch's symbols (s23, s27, ...) to "batch" and "time" everywhere.

    Unless probing has told before, which symbol is which is read off the recurrent layers, whose input is [batch, time,
    features] by definition; so a time-first module gets the right names as well.
    """
    free = {str(d) for value in graph.inputs for d in _dims(value) if not isinstance(d, int)}
    renames: dict[str, str] = {}
    for axis, role in enumerate(() if probed else (BATCH, TIME)):
        seen = Counter(str(_dims(n.inputs[0])[axis]) for n in graph if n.domain == DOMAIN)  # type: ignore[arg-type]
        symbols = [s for s, _ in seen.most_common() if s in free]
        if symbols:
            renames[symbols[0]] = role
    for value in graph.inputs:
        for dim, name in zip(_dims(value), axes[str(value.name)], strict=True):
            if name in _DEMANDED and isinstance(dim, int):
                raise ExportError(
                    f"the module fixes the {name} axis of input '{value.name}' to {dim}; it must stay free"
                )
            # A symbol of its own means that torch saw no need for it to equal another; its role still names it.
            if name and not isinstance(dim, int) and not isinstance(name, Steps):
                renames.setdefault(str(dim), name)
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, renames)) + r")\b") if renames else None
    for value in _all_values(graph):
        if value.shape is not None and pattern is not None:
            # A size that nobody knows has no name: of two values with equal names onnxruntime thinks that they are as large.
            dims = [pattern.sub(lambda m: renames[m[1]], d) if isinstance(d, str) else d for d in _dims(value)]
            value.shape = ir.Shape(dims)
    if lengths is not None:
        next(v for v in graph.inputs if v.name == lengths).shape = ir.Shape([BATCH])


def _all_values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _dims(value: ir.Value) -> list[Any]:
    """Sizes of a value: integers, or names of free axes."""
    if value.shape is None:
        raise ExportError(f"torch.onnx gave value '{value.name}' no shape")
    return [d if isinstance(d, int) else d.value for d in value.shape]
