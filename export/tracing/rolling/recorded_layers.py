"""Calls of rnncore's layers while a module is recorded: each is kept together, as one operation of the log."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from rnncore.export.tracing.operators import Operators
from rnncore.export.tracing.packing import packing_by_torch
from rnncore.export.tracing.passing_states import PassingStates
from rnncore.layers import Recurrent
from rnncore.placeholder import recording

LAYERS: ContextVar[dict[str, Recurrent]] = ContextVar("rnncore_recordedLAYERS")


@torch.library.custom_op("rnncore::recorded_layer", mutates_args=())
def recorded_layer(name: str, given: bool, tensors: Sequence[Tensor], lengths: Tensor | None) -> list[Tensor]:
    """The layer ``name`` of this recording on x and, if ``given``, states: [y, *states]."""
    x, *states = tensors
    with recording(None), packing_by_torch():  # type: ignore[arg-type]
        y, final = LAYERS.get()[name](x, tuple(states) if given else None, lengths)
    return [y.clone(), *(state.clone() for state in final)]


class LayerRecorder(PassingStates):
    """Keeps calls of rnncore's layers together; of one step, as in a loop, it runs the step itself."""

    def __init__(self, module: nn.Module, operators: Operators) -> None:
        self.layers: dict[str, Recurrent] = {}
        self._names: dict[int, str] = {}
        parts = [("", module), *((f"{name}.", layer) for name, layer in operators.layers.items())]
        for prefix, part in parts:
            for path, layer in part.named_modules():
                if isinstance(layer, Recurrent) and id(layer) not in self._names:
                    self._names[id(layer)] = prefix + path
                    self.layers[prefix + path] = layer

    def record(
        self, layer: Recurrent, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :class:`rnncore.placeholder.Recorder`."""
        if x.shape[1] == 1 and lengths is None:
            start = layer.initial_state(x.shape[0], x) if state is None else state
            y, *final = layer.cell.step(layer.cell.project(x[:, 0]), *start)
            return y.unsqueeze(1), tuple(final)
        given = state is not None
        y, *final = torch.ops.rnncore.recorded_layer(self._names[id(layer)], given, [x, *(state or ())], lengths)
        return y, tuple(final)
