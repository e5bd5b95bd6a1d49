"""The example call: its named tensors, which axes are free, and other inputs of any size made like it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.export.tracing.binding import bind
from rnncore.export.tracing.computed_lengths import lengths_behind
from rnncore.export.tracing.masks import filling_of
from rnncore.export.tracing.nesting import kinds_of_arrays, named_tensors, with_tensors
from rnncore.export.tracing.number_kinds import NO_KERNELS
from rnncore.export.tracing.observing import observing
from rnncore.export.tracing.padding import elsewhere, padding_of
from rnncore.export.tracing.row_ends import ends_of
from rnncore.export.tracing.starting_states import begun
from rnncore.export.tracing.whole_floats import with_whole_numbers
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError, raise_all
from rnncore.runtime.format.axes import BATCH, TIME, Axis, Size, Steps

LENGTHS_NAMES = (
    "lengths",
    "length",
    "lens",
    "seq_lens",
    "seq_lengths",
    "sequence_lengths",
    "x_lengths",
    "input_lengths",
)

Axes = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True)
class Input:
    """One tensor the module takes: example value and its free axes (None for a fixed one).

    An axis is its name, or :class:`Steps` where its size follows a named one of another input.
    filling: of a mask, what it holds where a row has steps.  padding: what says that a row has no step, where the module counts.
    """

    name: str
    value: Tensor
    axes: tuple[str | None, ...]
    filling: int | None = None
    padding: float | None = None

    def resized(self, sizes: Mapping[str, int], generator: torch.Generator, vocabulary: int) -> Tensor:
        """A random tensor like the example with ``sizes`` along its free axes.

        Entries are drawn from the example, so that they stay in the range the module is made for; floats get noise of
        the example's spread, or are whole numbers where it has no others, integers any value between the example's extremes
        (below ``vocabulary`` if it is constant).
        Shares of the longest row (numbers [batch] up to 1, which some packages take for lengths), masks and rows that the
        module counts are all full.
        """
        value = self.value.detach().cpu()
        shape = [_size(axis, n, sizes) for axis, n in zip(self.axes, value.shape, strict=True)]
        for axis, size in enumerate(shape):
            if self.axes[axis]:
                picks = torch.randint(value.shape[axis], (size,), generator=generator)
                value = value.index_select(axis, picks)
        if are_shares(self.value):
            value = torch.ones_like(value)
        elif self.filling is not None:
            value = torch.full_like(value, self.filling)
        elif value.is_floating_point():
            spread = self.value.detach().float().std(correction=0).item() if self.value.numel() > 1 else 0.0
            noise = torch.randn(value.shape, generator=generator)
            value = value + (noise * (spread or 1.0)).to(value.dtype)
            by_feature = value.dim() > 1 and self.axes[-1] is None
            value = with_whole_numbers(value, self.value, generator, by_feature=by_feature)
        elif value.dtype == torch.bool:
            value = torch.rand(value.shape, generator=generator) < 0.5
            value = value if self.padding is None else elsewhere(value, self.padding, 0, 1)
        elif not value.is_complex():
            low, high = int(self.value.min()), int(self.value.max())
            high = max(high, vocabulary - 1) if low == high else high
            value = torch.randint(low, high + 1, value.shape, generator=generator, dtype=value.dtype)
            if self.padding is not None:
                value = elsewhere(value, self.padding, low, high)
        return value.to(self.value.device)


@dataclass(frozen=True)
class Extent:
    """The sizes that a free axis takes: multiples of ``multiple`` from ``minimum`` to ``maximum``.

    stride: so much more of it is what outputs notice, of raw audio hundreds of samples.
    """

    name: str
    minimum: int = 1
    maximum: int | None = None
    multiple: int = 1
    stride: int = 1

    def near(self, size: int) -> int:
        """The ``size``-th size that the axis takes, counted in strides: 1 is the least."""
        found = self.minimum + (size - 1) * self.stride
        found = -(-found // self.multiple) * self.multiple
        return found if self.maximum is None else min(found, self.maximum // self.multiple * self.multiple)

    def takes(self, size: int) -> bool:
        """Whether the axis may have exactly this size."""
        most = size if self.maximum is None else self.maximum
        return self.minimum <= size <= most and size % self.multiple == 0

    @property
    def axis(self) -> Axis:
        """The same for the signature, where an axis that takes everything takes 0 too."""
        least = 0 if self.minimum == self.multiple == self.stride == 1 else self.minimum
        return Axis(self.name, least, self.maximum, self.multiple)


OTHER_SIZES = (3, 5, 2, 7)
"""Places of the sizes, among those that an axis takes, that axes other than batch and time are tried at by default."""


@dataclass(frozen=True)
class Example:
    """A call of the module, taken apart into tensors by name.

    extents: the sizes that free axes take, by name; an axis without takes any.
    states: inputs that are states of the file, with the number of the output that each becomes; drawn as the file starts them.
    counts: inputs [batch] that say how many entries along an axis belong to each row, with the name of that axis.
    trace_steps: so many steps the traced call shall have; None leaves that to the tracer.
    output_shapes: how the shapes of the outputs follow, None where nobody has looked.
    shorter: drawn lengths and counts differ from row to row, and the longest row is by so much shorter than the array; None: all
    are full.
    """

    inputs: tuple[Input, ...]
    lengths: str | None
    vocabulary: int
    _arguments: inspect.BoundArguments
    sorted_lengths: bool = False  # the module takes its lengths in decreasing order only
    extents: Mapping[str, Extent] = field(default_factory=dict)
    output_shapes: tuple[tuple[Size, ...], ...] | None = None
    states: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)
    trace_steps: int | None = None
    shorter: int | None = None

    @classmethod
    def of(cls, module: nn.Module, example: Any, axes: Axes | None, lengths: str | bool) -> Example:
        """Read ``example``: a tensor, a tuple of positional arguments, or a dict of keyword arguments.

        Raises:
            InputError: the example does not fit the module's forward, or has no tensor with a batch and a time axis.
        """
        arguments = bind(module, example)
        axes = dict(axes or {})
        named = [pair for name, value in arguments.arguments.items() for pair in named_tensors(value, name)]
        problems = [
            f"axes names '{name}', the inputs are {[n for n, _ in named]}" for name in axes.keys() - dict(named)
        ]
        own = _lengths_input(dict(named), lengths, problems)
        inputs = []
        for name, value in named:
            given = axes.get(name)
            if given is not None and len(given) != value.dim():
                problems.append(f"axes of '{name}' has {len(given)} entries, the tensor has {value.dim()} axes")
                continue
            chosen = tuple(given) if given is not None else default_axes(value)
            if any(a and n == 0 for a, n in zip(chosen, value.shape, strict=True)):
                problems.append(f"example input '{name}' has shape {tuple(value.shape)}: it needs at least one entry")
            inputs.append(Input(name, value, chosen, filling_of(name, value, dict(named))))
        if not named:
            problems.append(f"the example holds no tensor, only {_kinds(arguments)}")
        raise_all(problems)
        sizes = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
        found = cls(tuple(inputs), own, min(sizes, default=0), arguments)
        return found._observed(module, set(axes), lengths)

    def _observed(self, module: nn.Module, given_axes: set[str], lengths: str | bool) -> Example:
        """The same with what a run of the module tells: the lengths it packs with, states in torch's layout."""
        tensors = [i.value for i in self.inputs]
        with observing(module) as seen, torch.no_grad():
            try:
                self.call(module, tensors)
            except Exception as failure:
                pass_on_interruption(failure)
                return self  # ``check_runs`` says what is wrong
        named = dict(zip(self.names, tensors, strict=True))
        packed = None if lengths is False else seen.lengths_among(list(named.items()))
        if lengths == "auto" and self.lengths is None and packed is None:
            packed = lengths_behind(seen, module, named, lambda values: self.call(module, values))
        own = self.lengths or packed
        may = [] if own else [i.name for i in self.inputs if i.filling is None]
        padding = padding_of(seen, module, named, may, lambda values: self.call(module, values))
        inputs = tuple(
            replace(
                i,
                axes=(None, BATCH, None) if i.name not in given_axes and seen.is_state(i.value) else i.axes,
                padding=padding.get(i.name),
            )
            for i in self.inputs
        )
        return replace(self, inputs=inputs, lengths=own, sorted_lengths=seen.packs.sorted)

    @property
    def names(self) -> list[str]:
        """Names of the inputs in order."""
        return [i.name for i in self.inputs]

    @property
    def axis_names(self) -> list[str]:
        """Names of the free axes, each once."""
        axes = [axis for own in self.inputs for axis in own.axes if axis is not None and not isinstance(axis, Steps)]
        return list(dict.fromkeys(axes))

    @property
    def other_arrays(self) -> list[str]:
        """Kinds of arrays in the arguments that are no tensors, such as ``numpy.ndarray``."""
        return kinds_of_arrays(self._arguments.arguments)

    def fit(self, sizes: Mapping[str, int], seed: int = 0) -> dict[str, int]:
        """Sizes that the module takes: the given ones, counted as :meth:`Extent.near` does, and some for other axes.

        Where an axis takes any size these are ``sizes`` themselves.
        """
        names = [name for name in self.axis_names if name not in sizes]
        others = {name: OTHER_SIZES[(k + seed) % len(OTHER_SIZES)] for k, name in enumerate(names)}
        return {
            name: self.extents[name].near(size) if name in self.extents else size
            for name, size in {**others, **sizes}.items()
        }

    def started(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same inputs, with what the file starts from for states."""
        named = zip(self.inputs, tensors, strict=True)
        return [begun(i, tensor) if i.name in self.states else tensor for i, tensor in named]

    def draw(self, sizes: Mapping[str, int], generator: torch.Generator) -> list[Tensor]:
        """Random inputs of the given sizes, exactly, all lengths and counts full unless
        ``shorter`` says otherwise; other axes of sizes that the module takes.
        """
        sizes = {**self.fit({}), **sizes}
        return [
            ends_of(sizes[BATCH], sizes[TIME], self.shorter).to(torch.int64)
            if i.name == self.lengths
            else ends_of(sizes[BATCH], sizes[self.counts[i.name]], self.shorter).to(i.value.device, i.value.dtype)
            if i.name in self.counts
            else begun(i, i.resized(sizes, generator, self.vocabulary))
            if i.name in self.states
            else i.resized(sizes, generator, self.vocabulary)
            for i in self.inputs
        ]

    def like_itself(self, generator: torch.Generator) -> list[Tensor]:
        """Random inputs of the example's own sizes; its lengths and counts stay as they are."""
        own = [dict(zip(map(str, i.axes), i.value.shape, strict=True)) for i in self.inputs]
        return [
            i.value if i.name == self.lengths or i.name in self.counts else i.resized(sizes, generator, self.vocabulary)
            for i, sizes in zip(self.inputs, own, strict=True)
        ]

    def in_parts(self, module: nn.Module) -> list[Callable[[], Any]]:
        """Calls of ``module`` on the example itself, on its first steps, and on those after them."""
        steps = next((i.value.shape[i.axes.index(TIME)] for i in self.inputs if TIME in i.axes), 1)
        cuts = ((0, steps), (0, steps // 2), (steps // 2, steps)) if steps > 1 else ((0, steps),) * 3
        return [lambda cut=cut: self.call(module, self._between(*cut)) for cut in cuts]  # type: ignore[misc]

    def _between(self, start: int, end: int) -> list[Tensor]:
        """The example's tensors from step ``start`` to ``end``; lengths are full."""
        return [
            torch.full_like(i.value, end - start)
            if i.name == self.lengths
            else i.value.narrow(i.axes.index(TIME), start, end - start)
            if TIME in i.axes
            else i.value
            for i in self.inputs
        ]

    def call(self, module: nn.Module, tensors: Sequence[Tensor]) -> Any:
        """``module`` on flat tensors; lengths, int64 in every file, get the dtype that the module is made for."""
        named = zip(self.inputs, tensors, strict=True)
        source = iter([t.to(i.value.dtype) if i.name == self.lengths else t for i, t in named])
        filled = {name: with_tensors(value, source) for name, value in self._arguments.arguments.items()}
        bound = inspect.BoundArguments(self._arguments.signature, filled)
        return module(*bound.args, **bound.kwargs)


def are_shares(value: Tensor) -> bool:
    """Whether an input may say which share of the steps of the longest row each row has."""
    known = value.dim() == 1 and value.is_floating_point() and value.numel() > 0
    return known and bool((value > 0).all()) and float(value.max()) == 1.0


def _size(axis: str | None, own: int, sizes: Mapping[str, int]) -> int:
    if axis is None:
        return own
    return axis.at(sizes[axis.of]) if isinstance(axis, Steps) and axis not in sizes else sizes[axis]


def default_axes(value: Tensor) -> tuple[str | None, ...]:
    """Batch first, then time; one value or one vector of floats for each sequence has no time axis."""
    if value.dim() == 0:
        return ()
    timed = value.dim() >= 3 or (value.dim() == 2 and not value.is_floating_point())
    return (BATCH, TIME if timed else None, *(None for _ in range(value.dim() - 2)))[: value.dim()]


def _kinds(arguments: inspect.BoundArguments) -> str:
    """The types of the values, as words."""
    kinds = [type(value) for value in arguments.arguments.values()]
    words = ", ".join(dict.fromkeys(kind.__name__ for kind in kinds)) or "nothing"
    if any(kind.__module__ == "numpy" for kind in kinds):
        return f"{words}: use torch.from_numpy"
    return words + (": use torch.tensor" if list in kinds or float in kinds or int in kinds else "")


def _lengths_input(named: Mapping[str, Tensor], lengths: str | bool, problems: list[str]) -> str | None:
    """Name of the input that holds lengths, if the module takes one."""
    if lengths is False:
        return None
    if isinstance(lengths, str) and lengths != "auto":
        if lengths not in named:
            problems.append(f"lengths='{lengths}' is no input; the inputs are {list(named)}")
        return lengths
    found = [n for n, v in named.items() if n in LENGTHS_NAMES and v.dim() == 1 and not v.is_floating_point()]
    if len(found) > 1:
        problems.append(f"inputs {found} all look like lengths; say which with lengths='name'")
    return found[0] if found else None


def check_dtypes(module: nn.Module, example: Example) -> None:
    """Raise ExportError for dtypes in which onnxruntime's CPU kernels do not run; float16 and float64 do."""
    tensors = {
        **dict(module.named_parameters()),
        **dict(module.named_buffers()),
        **{i.name: i.value for i in example.inputs},
    }
    found = [name for name, tensor in tensors.items() if tensor.dtype in NO_KERNELS]
    if found:
        raise ExportError(
            f"{found[0]} is {str(tensors[found[0]].dtype).removeprefix('torch.')} (and {len(found) - 1} more), for which "
            "onnxruntime has no CPU kernels; export a copy in float32, copy.deepcopy(module).float(), with an example in "
            "float32, or .half() for a file of half the size"
        )


def check_runs(example: Example, module: nn.Module) -> Any:
    """Run the user's own example once, so that a failure there is told apart from a failure of the export."""
    try:
        with torch.no_grad():
            result = example.call(module, [i.value for i in example.inputs])
    except Exception as error:
        raise ExportError(f"{type(module).__name__} fails on the example itself: {error}") from error
    if not list(named_tensors(result, "")):
        raise ExportError(
            f"{type(module).__name__} returns a {type(result).__name__} without a tensor: let forward return a tensor, or a "
            "tuple, list, dict or dataclass of tensors"
        )
    return result
