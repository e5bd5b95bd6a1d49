"""What stands in for recurrent layers while ``torch.export`` traces the user's module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rnncore.cells import Cell
from rnncore.cells.base import state_shape
from rnncore.conversion import ConvertedLayer
from rnncore.export.tracing.rolling.cell import RolledCell
from rnncore.layers import Recurrent, StreamingLayer
from rnncore.layers.base import check_lengths, check_state
from rnncore.runtime.errors import ExportError, raise_all
from rnncore.runtime.format.axes import BATCH, TIME

L = TypeVar("L", Recurrent, StreamingLayer)

DOMAIN = "rnncore"
OP_TYPE = "Recurrent"
STATE_IN = "StateIn"
STATE_OUT = "StateOut"
_PATH = "_path_in_export"  # attribute of a layer in the module being traced


@dataclass
class Call:
    """One call of a recurrent layer seen in the traced module."""

    name: str
    layer: Recurrent
    z_size: int
    given_state: bool
    lengths: bool
    starts: tuple[np.ndarray, ...] | None = None
    """What it starts from, [size] for each state, if that is the same for every row of every input."""

    @property
    def cell(self) -> Cell:
        """The cell that the layer runs."""
        return self.layer.cell

    @property
    def owner(self) -> str:
        """Path of the cell, which names its weights; the same for every call of a layer."""
        return self.name.partition("@")[0] + ".cell"


@dataclass
class StreamingLayerCall:
    """One call of a layer without a loop whose state goes from chunk to chunk."""

    name: str
    layer: StreamingLayer
    given_state: bool
    lengths: bool


def captured_by(cell: Cell) -> tuple[Tensor, ...]:
    """What the step of a rolled loop reads from outside as a whole."""
    return cell.captured if isinstance(cell, RolledCell) else ()


class PlaceholderRecorder:
    """Emits one opaque node ``rnncore::Recurrent`` for each call of a recurrent layer.

    Node inputs: x [batch, time, input size], z [batch, time, z size], lengths [batch] or absent, one initial state
    [batch, size] for each state, [batch, *shape] where that has more axes, and what the step captures from outside.
    Outputs: y [batch, time, output size], the final states.  Attribute ``call`` is the key into :attr:`calls`.

    A layer without a loop is traced as it is, between two nodes that only pass on what they get: ``rnncore::StateIn``
    (x, initial states) -> states and ``rnncore::StateOut`` (y, final states) -> the same.  Their attribute ``call`` is the
    key into :attr:`carried`.

    Args:
        module: the module being traced; layer names are paths inside it.
        operators: layers that answer calls of torch's recurrent functions, by name.
    """

    def __init__(self, module: nn.Module, operators: Mapping[str, ConvertedLayer]) -> None:
        # A converted torch layer holds its cells in ``stack``, an inner matter that names should not show.
        inner = [
            f"{path}." * bool(path) + "stack." for path, m in module.named_modules() if isinstance(m, ConvertedLayer)
        ]
        self._layers: dict[str, Recurrent | StreamingLayer] = {}
        chosen: Mapping[str, str] = getattr(module, "layer_names", {})  # of a module whose loops were rolled
        for path, layer in module.named_modules():
            if isinstance(layer, Recurrent | StreamingLayer):
                for prefix in inner:
                    if path.startswith(prefix):
                        path = prefix.removesuffix("stack.") + path.removeprefix(prefix)
                path = chosen.get(path, path)
                # torch.export calls clones of modules that share a submodule; what a layer carries, its clone does.
                self._name_layer(layer, path)
        for name, operator in operators.items():
            for path, layer in operator.stack.named_modules():
                if isinstance(layer, Recurrent):
                    self._name_layer(layer, f"{name}.{path}")
        self.calls: dict[str, Call] = {}
        self.carried: dict[str, StreamingLayerCall] = {}
        self.output_names: list[str] = []
        self.lifted_lengths: Tensor | None = None
        self._axes: dict[str, set[str]] = {}

    def _name_layer(self, layer: Recurrent | StreamingLayer, path: str) -> None:
        layer.__dict__[_PATH] = path
        self._layers[path] = layer

    def start(self, lengths: Tensor | None, axes: dict[str, set[str]]) -> None:
        """Begin a trace: ``lengths`` go to every layer that is given none and runs over rows and steps of the inputs.

        axes: how torch writes the sizes of the batch and time axes of the inputs.
        """
        self.calls.clear()
        self.carried.clear()
        self.lifted_lengths, self._axes = lengths, axes

    def record(
        self, layer: Recurrent, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :class:`rnncore.placeholder.Recorder`."""
        cell = layer.cell  # the clone's, if there is one: its weights are those of the trace
        name = self._fresh_name(layer, self.calls)
        given, lengths = state is not None, self._lengths(x, lengths)
        z = cell.project(x)
        free = isinstance(cell, RolledCell) and cell.is_free
        start = state if free and state is not None else self._start(layer, x, state)
        width = cell.width if isinstance(cell, RolledCell) and cell.width is not None else cell.output_size
        self.calls[name] = Call(name, self._original(layer), int(z.shape[-1]), given, lengths is not None)
        y, *final = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{OP_TYPE}",
            [x, z, lengths, *start, *captured_by(cell)],
            attrs={"call": name},
            dtypes=[x.dtype] * (1 + len(start)),
            shapes=[(x.shape[0], x.shape[1], width), *((x.shape[0], *value.shape[1:]) for value in start)],
            version=1,
        )
        return y, tuple(final)

    def carry(
        self, layer: StreamingLayer, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[str, tuple[Tensor, ...], Tensor | None]:
        """See :class:`rnncore.placeholder.Recorder`."""
        name = self._fresh_name(layer, self.carried)
        given, lengths = state is not None, self._lengths(x, lengths)
        start = self._start(layer, x, state)
        self.carried[name] = StreamingLayerCall(name, self._original(layer), given, lengths is not None)
        if not start:
            return name, (), lengths
        carried = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{STATE_IN}",
            [x, *start],
            attrs={"call": name},
            dtypes=[value.dtype for value in start],
            shapes=_state_shapes(x, layer.state_sizes),
            version=1,
        )
        return name, tuple(carried), lengths

    def release(self, call: str, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :class:`rnncore.placeholder.Recorder`."""
        layer = self.carried[call].layer
        _check_advance(layer, y, state)
        if not state:
            return y, ()
        y, *final = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{STATE_OUT}",
            [y, *state],
            attrs={"call": call},
            dtypes=[value.dtype for value in (y, *state)],
            shapes=[tuple(y.shape), *_state_shapes(y, layer.state_sizes)],
            version=1,
        )
        return y, tuple(final)

    def _lengths(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        """The lengths that a call over ``x`` heeds: its own, or those lifted to an input of the file."""
        if lengths is not None:
            return check_lengths(lengths, x, traced=True)
        own = str(x.shape[0]) in self._axes.get(BATCH, ()) and str(x.shape[1]) in self._axes.get(TIME, ())
        return self.lifted_lengths if own else None

    def _start(
        self, layer: Recurrent | StreamingLayer, x: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, ...]:
        if state is not None:
            sizes = layer.cell.state_sizes if isinstance(layer, Recurrent) else layer.state_sizes
            return check_state(state, sizes, x, self._name(layer))
        if type(layer) is Recurrent:  # a subclass may start from something else
            return layer.cell.initial_state(x.shape[0], x)
        return layer.initial_state(x.shape[0], x)

    def _original(self, layer: L) -> L:
        """The layer of the module itself, of which ``layer`` may be a clone that torch.export made."""
        return self._layers.get(str(layer.__dict__.get(_PATH)), layer)  # type: ignore[return-value]

    def _name(self, layer: Recurrent | StreamingLayer) -> str:
        inner = layer.cell if isinstance(layer, Recurrent) else layer
        return layer.__dict__.get(_PATH) or type(inner).__name__

    def _fresh_name(self, layer: Recurrent | StreamingLayer, calls: Mapping[str, Call | StreamingLayerCall]) -> str:
        """The layer's path; a layer called again gets a number, so that each call has states of its own."""
        name = self._name(layer)
        original = self._layers.get(str(layer.__dict__.get(_PATH)), layer)
        before = sum(call.layer is original for call in calls.values())
        return f"{name}@{before}" if before else name


def _state_shapes(x: Tensor, sizes: Mapping[str, Any]) -> list[tuple[int | torch.SymInt, ...]]:
    return [(x.shape[0], *state_shape(size)) for size in sizes.values()]


def _check_advance(layer: StreamingLayer, y: Tensor, state: tuple[Tensor, ...]) -> None:
    name = type(layer).__name__
    if not isinstance(state, tuple) or len(state) != len(layer.state_sizes):
        raise ExportError(f"{name}.advance must return (y, ({', '.join(layer.state_sizes)})), y and a tuple of states")
    problems = []
    if y.dim() != 3 or y.shape[2] != layer.output_size:
        problems.append(
            f"{name}.advance gives y of shape {tuple(y.shape)}, expected [batch, time, {layer.output_size}]"
        )
    for value, (what, size) in zip(state, layer.state_sizes.items(), strict=True):
        if value.dim() != 2 or value.shape[1] != size:
            problems.append(f"{name}.advance gives {what} of shape {tuple(value.shape)}, expected [batch, {size}]")
    raise_all(problems, ExportError)
