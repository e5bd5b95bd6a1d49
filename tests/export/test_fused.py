"""form="fused": ONNX's own operators where they compute exactly the cell, a reasoned refusal everywhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore.export import export
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.strategies import randomize
from tests.tolerances import fixed

INPUT, HIDDEN = 3, 5

FUSABLE = {
    **{f"rnn_{a}": {"activation": a} for a in ("tanh", "relu", "softsign", "hard_sigmoid", "elu", "leaky_relu")},
    **{f"gru_{r}": {"reset": r} for r in ("after", "before")},
    **{
        f"gru_{r}_hard": {
            "reset": r,
            "gate_activation": "hard_sigmoid_keras2",
            "activation": "softsign",
            "bias": False,
        }
        for r in ("after", "before")
    },
    "lstm_plain": {},
    "lstm_peephole": {"peephole": "current"},
    "lstm_coupled": {"coupled": True},
    "lstm_coupled_peephole": {"coupled": True, "peephole": "current", "bias": False},
    "lstm_learned": {"gate_activation": "hard_sigmoid", "activation": "relu", "learn_initial_state": True},
}

REFUSED = {
    "projection": rnncore.LSTMCell(INPUT, HIDDEN, projection=2),
    "layer normalisation": rnncore.LSTMCell(INPUT, HIDDEN, layer_norm=True),
    "not the previous one": rnncore.LSTMCell(INPUT, HIDDEN, peephole="previous"),
    "always has a reset gate": rnncore.GRUCell(INPUT, HIDDEN, reset=None),
    "no operator for MinGRUCell": rnncore.MinGRUCell(INPUT, HIDDEN),
    "no activation 'gelu'": rnncore.RNNCell(INPUT, HIDDEN, activation="gelu"),
    "only for the sigmoid": rnncore.LSTMCell(INPUT, HIDDEN, coupled=True, gate_activation="hard_sigmoid"),
}


class Parallel(nn.Module):
    """Every fusable cell on the same input, each an output of its own."""

    def __init__(self, reverse: bool) -> None:
        super().__init__()
        kinds = {"rnn": rnncore.RNNCell, "gru": rnncore.GRUCell, "lstm": rnncore.LSTMCell}
        self.branches = nn.ModuleDict(
            {
                name: rnncore.Recurrent(kinds[name.partition("_")[0]](INPUT, HIDDEN, **options), reverse=reverse)
                for name, options in FUSABLE.items()
            }
        )

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        results = {}
        for name, layer in self.branches.items():
            y, state = layer(x, lengths=lengths)
            results[name] = y
            results.update({f"{name}_{i}": s for i, s in enumerate(state)})
        return results


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_every_fusable_cell_equals_pytorch_with_lengths_of_zero(tmp_path: Path, reverse: bool) -> None:
    module = randomize(Parallel(reverse).eval(), seed=3)
    path = tmp_path / "fused.onnx"
    export(module, path, (torch.randn(2, 4, INPUT), torch.tensor([4, 2])), form="fused", streaming=False)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert {"RNN", "GRU", "LSTM"} <= operators and not operators & {"Loop", "Scan"}
    x = torch.randn(5, 7, INPUT, generator=torch.Generator().manual_seed(5))
    lengths = torch.tensor([7, 0, 1, 3, 6])
    got = load(path).run(x.numpy(), lengths=lengths.numpy())
    with torch.no_grad():
        for name, expected in module(x, lengths).items():
            np.testing.assert_allclose(got[name], expected.numpy(), atol=fixed("float32 fused operator"), err_msg=name)


class Refused(nn.Module):
    """Every cell that has no such operator, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(rnncore.Recurrent(cell) for cell in REFUSED.values())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x)[0] for layer in self.encoder]


def test_refusals_name_the_layer_the_reason_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export(Refused(), tmp_path / "x.onnx", torch.randn(2, 4, INPUT), form="fused", streaming=False, verify=False)
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == len(REFUSED) and not list(tmp_path.iterdir())
    for number, (reason, line) in enumerate(zip(REFUSED, lines, strict=True)):
        assert f"layer 'encoder.{number}': " in line and reason in line
        assert line.endswith("; use form='loop' or 'scan'")
