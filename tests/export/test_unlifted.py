"""Without the lengths that were lifted into it, a trace is what tracing the module again without them would give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rnncore.conversion import convert_plain_layers
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.operators import Operators
from rnncore.export.tracing.trace import Trace, trace
from rnncore.export.tracing.unlifted import without_lifted_lengths
from rnncore.layers import CausalConv1d


def traced(module: nn.Module, *, lift: bool) -> Trace:
    module = convert_plain_layers(module.eval())
    example = Example.of(module, torch.randn(2, 9, 4), None, "auto")
    return trace(module, example, Operators([]), lift_lengths=lift, output_names=None, seed=0)


def graph(found: Trace) -> list[Any]:
    """What stands in the graph, but for names."""
    nodes = [(n.domain, n.op_type, [v is None for v in n.inputs], len(n.outputs)) for n in found.model.graph]
    return [[(str(v.name), str(v.shape)) for v in found.model.graph.inputs], nodes]


class Both(nn.Module):
    """A bidirectional layer, a convolution that looks back, another layer from a state of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
        self.second = nn.GRU(6, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, (h, _) = self.first(x)
        shifted = torch.cat([y[:, :1] * 0, y[:, :-1]], 1)
        return self.second(y + shifted, h[:1])[0]


def test_lengths_are_taken_out_of_a_trace() -> None:
    module = Both()
    found, again = without_lifted_lengths(traced(module, lift=True)), traced(module, lift=False)
    assert found is not None and found.lengths is None and not found.lengths_lifted
    assert graph(found) == graph(again)
    assert {name: (c.lengths, c.given_state, c.z_size) for name, c in found.calls.items()} == {
        name: (c.lengths, c.given_state, c.z_size) for name, c in again.calls.items()
    }
    assert [call.lengths for call in found.calls.values()] == [False] * 3
    assert without_lifted_lengths(again) is None  # there are none in it
    assert without_lifted_lengths(replace(found, lengths_lifted=True)) is None


def test_masks_of_a_layer_without_a_loop_need_a_trace_of_their_own() -> None:
    assert without_lifted_lengths(traced(nn.Sequential(CausalConv1d(4, 3, 2)), lift=True)) is None
