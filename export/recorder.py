"""What stands in for recurrent layers while ``torch.export`` traces the user's module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rnncore.cells import Cell
from rnncore.conversion import ConvertedLayer
from rnncore.layers import Recurrent
from rnncore.layers.base import check_lengths, check_state

DOMAIN = "rnncore"
OP_TYPE = "Recurrent"
_PATH = "_path_in_export"  # attribute of a layer in the module being traced


@dataclass
class Call:
    """One call of a recurrent layer seen in the traced module."""

    name: str
    layer: Recurrent
    z_size: int
    given_state: bool
    lengths: bool

    @property
    def cell(self) -> Cell:
        """The cell that the layer runs."""
        return self.layer.cell

    @property
    def owner(self) -> str:
        """Path of the cell, which names its weights; the same for every call of a layer."""
        return self.name.partition("@")[0] + ".cell"


class PlaceholderRecorder:
    """Emits one opaque node ``rnncore::Recurrent`` for each call of a recurrent layer.

    Node inputs: x [batch, time, input size], z [batch, time, z size], lengths [batch] or absent, one initial state
    [batch, size] for each state.
    Outputs: y [batch, time, output size], the final states.  Attribute ``call`` is the key into :attr:`calls`.

    Args:
        module: the module being traced; layer names are paths inside it.
    """

    def __init__(self, module: nn.Module) -> None:
        # A converted torch layer holds its cells in ``stack``, an inner matter that names should not show.
        inner = [
            f"{path}." * bool(path) + "stack." for path, m in module.named_modules() if isinstance(m, ConvertedLayer)
        ]
        self._layers: dict[str, Recurrent] = {}
        for path, layer in module.named_modules():
            if isinstance(layer, Recurrent):
                for prefix in inner:
                    if path.startswith(prefix):
                        path = prefix.removesuffix("stack.") + path.removeprefix(prefix)
                # torch.export calls clones of modules that share a submodule; what a layer carries, its clone does.
                layer.__dict__[_PATH] = path
                self._layers[path] = layer
        self.calls: dict[str, Call] = {}
        self.output_names: list[str] = []
        self.lifted_lengths: Tensor | None = None
        self._input_axes: set[str] = set()

    def start(self, lengths: Tensor | None, input_axes: set[str]) -> None:
        """Begin a trace: ``lengths`` go to every layer that is given none and runs over an axis of the inputs."""
        self.calls.clear()
        self.lifted_lengths, self._input_axes = lengths, input_axes

    def record(
        self, layer: Recurrent, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :class:`rnncore.placeholder.Recorder`."""
        cell = layer.cell  # the clone's, if there is one: its weights are those of the trace
        layer = self._layers.get(str(layer.__dict__.get(_PATH)), layer)
        batch, time = x.shape[0], x.shape[1]
        if lengths is not None:
            lengths = check_lengths(lengths, x, traced=True)
        elif self.lifted_lengths is not None and str(time) in self._input_axes:
            lengths = self.lifted_lengths
        z = cell.project(x)
        start = (
            cell.initial_state(batch, x)
            if state is None
            else check_state(state, cell.state_sizes, x, self._name(layer))
        )
        name = self._fresh_name(layer)
        self.calls[name] = Call(name, layer, int(z.shape[-1]), state is not None, lengths is not None)
        y, *final = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{OP_TYPE}",
            [x, z, lengths, *start],
            attrs={"call": name},
            dtypes=[x.dtype] * (1 + len(start)),
            shapes=[(batch, time, cell.output_size), *((batch, size) for size in cell.state_sizes.values())],
            version=1,
        )
        return y, tuple(final)

    def _name(self, layer: Recurrent) -> str:
        return layer.__dict__.get(_PATH) or type(layer.cell).__name__

    def _fresh_name(self, layer: Recurrent) -> str:
        """The layer's path; a layer called again gets a number, so that each call has states of its own."""
        name = self._name(layer)
        calls = sum(call.layer is layer for call in self.calls.values())
        return f"{name}@{calls}" if calls else name
