"""Every backend gives the numbers of the module in float64: any architecture, any input, any way of cutting it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from tests.export.backends import (
    Backend,
    assert_parity,
    by_onnx_reference,
    by_oracle,
    by_push_many,
    by_runtime,
    by_streams,
    by_torch,
)
from tests.export.exporting import Exported, export_forms
from tests.export.modules import Network
from tests.strategies import SEEDS, Architecture, RecurrentSpec, architectures, chunkings, inputs

ARCHITECTURES = max(2, settings.default.max_examples // 8)
INPUTS_EACH = 12
TIMES, BATCHES = (1, 13, 0, 29), (1, 7, 2)


IN_DOUBLE = {"sigmoid", "tanh", "relu", "silu", "hard_sigmoid_keras2", "hard_tanh", "linear"}
"""Activations that onnxruntime runs in float64; it has no such Erf, Elu, Selu, Softplus, Softsign, HardSigmoid."""


def in_double(architecture: Architecture) -> bool:
    layers = [layer for layer in architecture.layers if isinstance(layer, RecurrentSpec)]
    cells = [cell for layer in layers for cell in (layer.cell, layer.backward) if cell is not None]
    used = {c.options.get(name, "tanh") for c in cells for name in ("activation", "gate_activation")}
    return used <= IN_DOUBLE


def backends_for(exported: Exported, chunks: list[int]) -> dict[str, Backend]:
    network = exported.module
    assert isinstance(network, Network)
    found = {
        "oracle": by_oracle(network),
        "torch": by_torch(network, next(network.parameters()).dtype),
        "runtime loop": by_runtime(exported.models["loop"]),
        "runtime scan": by_runtime(exported.models["scan"]),
    }
    if exported.loop.causal:
        found["streams"] = by_streams(exported.models["loop"], chunks)
        found["push_many"] = by_push_many(exported.models["scan"], chunks)
    return found


# Not shrunk: an export takes seconds, and what is drawn prints as a few lines anyway.
@settings(max_examples=ARCHITECTURES, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    architecture=architectures(max_layers=2) | architectures(causal=True, max_layers=3),
    seed=SEEDS,
    double=st.booleans(),
    with_states=st.booleans(),
    own_lengths=st.booleans(),
    data=st.data(),
)
def test_any_architecture(
    architecture: Architecture, seed: int, double: bool, with_states: bool, own_lengths: bool, data: st.DataObject
) -> None:
    dtype = torch.float64 if double and in_double(architecture) else torch.float32
    network = Network(architecture.build(seed, dtype), with_states=with_states).eval()
    x = torch.randn(2, 4, architecture.input_size, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    example = (x, torch.tensor([4, 2])) if own_lengths else (x,)
    with tempfile.TemporaryDirectory() as folder:
        exported = export_forms(network, Path(folder), example)
        loop = by_onnx_reference(exported.loop, exported.proto())
    assert exported.loop.signature.lengths is not None
    assert exported.loop.causal is exported.models["scan"].causal is architecture.causal
    for _ in range(INPUTS_EACH):
        drawn = data.draw(inputs(architecture.input_size, times=TIMES, batches=BATCHES, with_state=False))
        chunks = data.draw(chunkings(drawn.time)) if architecture.causal else []
        backends = backends_for(exported, chunks)
        if drawn.time > 0:
            backends["onnx.reference loop"] = loop
        note(f"{dtype}, {drawn}, chunks {chunks}")
        assert_parity(backends, network, drawn.x, drawn.lengths_array)
