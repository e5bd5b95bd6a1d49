"""Run a module at other sizes than its example's, eagerly, and note what it did: which axes are free is seen, not guessed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rnncore.export.tracing.counted_sizes import is_count
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.nesting import named_tensors
from rnncore.layers import Recurrent, StreamingLayer
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.format.axes import TIME

Place = tuple[int, int]
"""An axis of an input: (index of the input, position of the axis)."""

MOST_RUNS = 240
MOST_WORK = 10**11
"""Multiplications of all runs together, some 20 s of one core; never a time, or a busy machine would find other axes."""
_WORK_OF_A_CALL = 50_000  # what calling one of torch's functions costs, in multiplications
_PRODUCTS = {"linear": 0, "matmul": 0, "mm": 0, "bmm": 0, "__matmul__": 0, "addmm": 1, "baddbmm": 1}
"""Which argument of products is summed up along its last axis."""
_LAYERS = {"lstm": "batch_first", "gru": "batch_first", "rnn_tanh": "batch_first", "rnn_relu": "batch_first"}
_BATCH_FIRST = 8  # position of that argument of torch's functions over whole sequences
_CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")


@dataclass(frozen=True)
class Outcome:
    """What one run did.

    shapes: of its outputs.  calls: (rows, steps) of each recurrent call, in order.  operations: calls of torch's
    functions, which grow with an axis that Python loops over.
    """

    shapes: tuple[tuple[int, ...], ...]
    calls: tuple[tuple[int, int], ...]
    operations: int


class _Watch(TorchFunctionMode):
    """Counts operations, and notes the sizes of torch's own recurrent calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, int]] = []
        self.operations = 0
        self.work = 0
        self.sizes: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return func(*args, **(kwargs or {}))
        self.operations += 1
        self._note_sizes(name, args)
        result = func(*args, **(kwargs or {}))
        self.work += _WORK_OF_A_CALL + _multiplications(name, [*args, *(kwargs or {}).values()], result)
        if isinstance(result, Tensor):
            self.sizes.update(result.shape)
        return result

    def _note_sizes(self, name: str, args: Any) -> None:
        if name in _LAYERS and len(args) > _BATCH_FIRST and isinstance(args[0], Tensor) and args[0].dim() == 3:
            first, second = args[0].shape[:2]
            self.calls.append((first, second) if args[_BATCH_FIRST] else (second, first))
        elif name in _LAYERS and len(args) > 1 and isinstance(args[1], Tensor):  # packed: data and sizes of its steps
            _check_packed(*args[:4])
            self.calls.append((int(args[1][0]) if args[1].numel() else 0, args[1].numel()))
        elif name in _CELLS and isinstance(args[0], Tensor):
            self.calls.append((args[0].shape[0] if args[0].dim() > 1 else 1, 1))


def _check_packed(data: Tensor, batch_sizes: Tensor, states: Any, weights: Sequence[Tensor]) -> None:
    """What torch leaves out: packed sequences of equal length run with any number of features, and give any numbers.

    Where there are fewer rows in a state than sequences, it reads and writes where nothing is its own.
    """
    rows = int(batch_sizes[0]) if batch_sizes.numel() else 0
    given = [states] if isinstance(states, Tensor) else list(states)
    if int(batch_sizes.sum()) != data.shape[0] or any(state.shape[-2] != rows for state in given):
        raise ValueError(f"{data.shape[0]} packed steps of {rows} rows, and states of {[list(s.shape) for s in given]}")
    if weights and data.shape[-1] != weights[0].shape[-1]:
        raise ValueError(f"{data.shape[-1]} features for a layer of {weights[0].shape[-1]}")


def _multiplications(name: str, args: Any, result: Any) -> int:
    """About how many numbers one call multiplies."""
    if name in _LAYERS:
        weights = [t for entry in args[2:] if isinstance(entry, list | tuple) for t in entry if isinstance(t, Tensor)]
        rows = args[0].numel() // max(1, args[0].shape[-1])
        return rows * sum(weight.numel() for weight in weights if weight.dim() == 2)
    if not isinstance(result, Tensor):
        return 0
    tensors = [value for value in args if isinstance(value, Tensor)]
    if name in _PRODUCTS and len(tensors) > _PRODUCTS[name]:
        return result.numel() * tensors[_PRODUCTS[name]].shape[-1]
    if name == "einsum" and isinstance(args[0], str):
        return _of_einsum(args[0], tensors, result)
    if name.startswith("conv"):
        return result.numel() * min((t.numel() // max(1, t.shape[0]) for t in tensors if t.dim() > 1), default=1)
    return result.numel()


def _of_einsum(equation: str, operands: Sequence[Tensor], result: Tensor) -> int:
    """As many as all its indices have values together; those that an ellipsis stands for are in the result, too."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    sizes = {
        index: size
        for term, operand in zip(terms, operands, strict=False)
        if "." not in term and len(term) == operand.dim()
        for index, size in zip(term, operand.shape, strict=True)
    }
    return max(prod(sizes.values()), result.numel())


class Prober:
    """Runs ``module`` on inputs like the example's, of other sizes; whatever a run moves in the module is put back."""

    def __init__(self, module: nn.Module, example: Example, seed: int = 0) -> None:
        self._module = module
        self._example = example
        self._seed = seed
        self._known: dict[tuple[tuple[Place, int], ...], Outcome | None] = {}
        self._met: dict[tuple[tuple[Place, int], ...], frozenset[int]] = {}
        self._work = 0
        self.counting = self._may_count()
        self.base = {(i, a): n for i, inp in enumerate(example.inputs) for a, n in enumerate(inp.value.shape)}

    def name(self, place: Place) -> str:
        """An axis in words."""
        return f"axis {place[1]} of '{self._example.names[place[0]]}'"

    @property
    def exhausted(self) -> bool:
        """Whether enough was tried: nothing more is run.  The same on every machine."""
        return len(self._known) >= MOST_RUNS or self._work > MOST_WORK

    def run(self, sizes: Mapping[Place, int], *, needed: bool = False) -> Outcome | None:
        """What happens where some axes have other sizes than those of :attr:`base`; None if the module fails.

        Once enough was tried, that is not known of what was not: None, but where it is ``needed``.
        """
        every = {**self.base, **sizes}
        key = tuple(sorted(every.items()))
        if key not in self._known:
            if self.exhausted and not needed:
                return None
            self._known[key], self._met[key] = self._run(every)
        return self._known[key]

    def sizes_met(self, sizes: Mapping[Place, int]) -> frozenset[int]:
        """Sizes of the results of all operations in such a run, as far as it came; of the inputs, too."""
        self.run(sizes)
        every = {**self.base, **sizes}
        return self._met.get(tuple(sorted(every.items())), frozenset()) | set(every.values())

    def answer(self, tensors: list[Tensor]) -> list[Tensor] | None:
        """The module's outputs on ``tensors``, None if it fails."""
        with put_back(self._module), torch.no_grad():
            try:
                return [value for _, value in named_tensors(self._example.call(self._module, tensors), "")]
            except Exception as failure:
                pass_on_interruption(failure)
                return None

    def failure(self, sizes: Mapping[Place, int]) -> Exception | None:
        """What the module raises at these sizes, None if it answers."""
        with put_back(self._module), torch.no_grad():
            try:
                self._example.call(self._module, self.draw(sizes))
            except Exception as failure:
                pass_on_interruption(failure)
                return failure
        return None

    def shapes(self) -> str:
        """The inputs of the example and their shapes, in words."""
        return ", ".join(f"'{own.name}' {list(own.value.shape)}" for own in self._example.inputs)

    def held_arrays(self) -> str:
        """The kinds of arrays in the example that are no tensors, in words; empty if there are none."""
        return " and ".join(self._example.other_arrays)

    def run_under(self, mode: TorchFunctionMode, sizes: Mapping[Place, int]) -> None:
        """Run the module at these sizes under ``mode``, as far as it comes."""
        tensors = self.draw(sizes)
        with mode:
            self.answer(tensors)

    def draw(self, sizes: Mapping[Place, int]) -> list[Tensor]:
        """Inputs like the example's of these sizes; lengths are full."""
        return next(self._draws(sizes))

    def _draws(self, sizes: Mapping[Place, int]) -> Iterator[list[Tensor]]:
        """The same for each axis that lengths may be full along, where the example has several of that size."""
        every = {**self.base, **sizes}
        options = {index: self._counted(index, every) for index in self.counting}
        for k in range(max(map(len, options.values()), default=1)):
            yield self._drawn(every, {index: found[min(k, len(found) - 1)] for index, found in options.items()})
        lengths = {index: found[0] for index, found in options.items() if self.is_lengths(index)}
        if len(lengths) < len(options):  # what looks like counts may be anything else
            yield self._drawn(every, lengths)

    def _drawn(self, every: Mapping[Place, int], counts: Mapping[int, int]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self._seed)
        tensors = []
        for i, own in enumerate(self._example.inputs):
            shape = [every[i, axis] for axis in range(own.value.dim())]
            names = tuple(str(axis) for axis in range(own.value.dim()))
            drawn = replace(own, axes=names).resized(
                dict(zip(names, shape, strict=True)), generator, self._example.vocabulary
            )
            if i in counts:
                drawn = torch.full_like(drawn, counts[i])
            tensors.append(drawn)
        return tensors

    def is_lengths(self, index: int) -> bool:
        """Whether an input is the lengths of the rows."""
        return self._example.names[index] == self._example.lengths

    def _may_count(self) -> list[int]:
        """Inputs that may count along an axis of others: the lengths, and whole numbers [batch] as large as such an axis."""
        found = []
        for index, own in enumerate(self._example.inputs):
            sizes = {size for other in self._example.inputs if other is not own for size in other.value.shape[1:]}
            largest = int(own.value.max()) if is_count(own.value) else 0
            if self.is_lengths(index) or (largest > 1 and largest in sizes):
                found.append(index)
        return found

    def counts(self, index: int, places: Collection[Place], sizes: Mapping[Place, int]) -> bool:
        """Whether input ``index`` counts along ``places``: there the module wants another number at other sizes."""
        own = self._example.inputs[index].value
        if not any(self.base[place] == int(own.max()) for place in places):
            return False
        full, every = self.run(sizes), {**self.base, **sizes}
        as_it_was = {**{i: int(self._example.inputs[i].value.max()) for i in self.counting if i == index}}
        others = {i: self._counted(i, every)[0] for i in self.counting if i != index}
        kept = self._run_on(self._drawn(every, {**others, **as_it_was}), set())
        return full is not None and (kept is None or kept.shapes != full.shapes)

    def _counted(self, index: int, sizes: Mapping[Place, int]) -> list[int]:
        """Sizes of the axes that the counts of the example are full along, those that changed first; else their largest."""
        longest = int(self._example.inputs[index].value.max())
        along = [place for place, size in self.base.items() if size == longest and place[0] != index and place[1] != 0]
        along += [place for place, size in self.base.items() if size == longest and place[0] != index]
        roles = [
            (i, axis) for i, inp in enumerate(self._example.inputs) for axis, a in enumerate(inp.axes) if a == TIME
        ]
        along += [place for place in roles if self.base[place] >= longest and place[0] != index]
        along.sort(key=lambda place: sizes[place] == self.base[place])
        return list(dict.fromkeys(sizes[place] for place in along)) or [longest]

    def _run(self, sizes: Mapping[Place, int]) -> tuple[Outcome | None, frozenset[int]]:
        met: set[int] = set()
        for tensors in self._draws(sizes):
            outcome = self._run_on(tensors, met)
            if outcome is not None:
                return outcome, frozenset(met)
        return None, frozenset(met)

    def _run_on(self, tensors: list[Tensor], met: set[int]) -> Outcome | None:
        watch = _Watch()
        with put_back(self._module), _layers_watched(self._module, watch.calls), torch.no_grad():
            try:
                with watch:
                    outputs = self._example.call(self._module, tensors)
            except Exception as failure:
                pass_on_interruption(failure)
                return None
            finally:
                self._work += watch.work
                met |= watch.sizes
        shapes = tuple(tuple(value.shape) for _, value in named_tensors(outputs, ""))
        return Outcome(shapes, tuple(watch.calls), watch.operations)


@contextmanager
def put_back(module: nn.Module) -> Iterator[None]:
    """Whatever the block moves in ``module``, buffers and attributes of any part, is as before after it."""
    parts = list(module.modules())
    attributes = [dict(part.__dict__) for part in parts]
    buffers = [dict(part._buffers) for part in parts]
    values = [(value, value.clone()) for own in buffers for value in own.values() if value is not None]
    try:
        yield
    finally:
        for part, own, kept in zip(parts, attributes, buffers, strict=True):
            part.__dict__.clear()
            part.__dict__.update(own)
            part._buffers.clear()
            part._buffers.update(kept)
        with torch.no_grad():
            for value, before in values:
                if value.shape == before.shape and not torch.equal(value, before):
                    value.copy_(before)


@contextmanager
def _layers_watched(module: nn.Module, calls: list[tuple[int, int]]) -> Iterator[None]:
    """Note the sizes of calls of rnncore's own layers and cells in the block."""

    def take(layer: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        x = arguments[0] if arguments else next(iter(options.values()), None)
        if isinstance(x, Tensor) and x.dim() >= 2:
            calls.append((x.shape[0], x.shape[1]))

    own = [part for part in module.modules() if isinstance(part, Recurrent | StreamingLayer)]
    hooks = [part.register_forward_pre_hook(take, with_kwargs=True) for part in own]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
