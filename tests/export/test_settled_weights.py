"""Linear algebra of weights alone, for which there is no ONNX, is computed when the file is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime.errors import ExportError
from tests.export.rolled import exported

WIDTH = 4
EYE = torch.eye(WIDTH)
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "inverse": lambda a: torch.inverse(3 * EYE + a),
    "solve": lambda a: torch.linalg.solve(3 * EYE + a, a),
    "cholesky": lambda a: torch.linalg.cholesky(a @ a.T + EYE).T,
    "inverse of an inverse": lambda a: torch.inverse(EYE + torch.inverse(3 * EYE + a)) @ torch.linalg.qr(a)[1],
    "qr": lambda a: torch.linalg.qr(a)[0],
    "exponential": lambda a: torch.matrix_exp(a - a.T),
}


class Turned(nn.Module):
    """A loop whose recurrent weight comes out of linear algebra, inside of the loop or before it."""

    def __init__(self, kind: str, *, inside: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.randn(WIDTH, WIDTH).tanh())
        self._made, self._inside = KINDS[kind], inside

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], WIDTH), []
        weight = self._made(self.weight)
        for t in range(x.shape[1]):
            if self._inside:
                weight = self._made(self.weight)
            h = torch.tanh(x[:, t] + h @ weight)
            outputs.append(h)
        return torch.stack(outputs, 1)


class Orthogonal(nn.Module):
    """No loop of Python: a layer of torch under an orthogonal weight."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.last = torch.nn.utils.parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH), orthogonal_map=kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gru(x)[0])


def draw(batch: int, time: int) -> Tensor:
    return torch.randn(batch, time, WIDTH)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_loops_with_it_stream(kind: str, *, inside: bool, tmp_path: Path) -> None:
    _, report = exported(Turned(kind, inside=inside), tmp_path, draw(2, 9), draw, [(1, 4), (3, 13)])
    assert report.causal


@pytest.mark.parametrize("kind", ["cayley", "matrix_exp", "householder"])
def test_orthogonal_weights(kind: str, tmp_path: Path) -> None:
    _, report = exported(Orthogonal(kind), tmp_path, draw(2, 9), draw, [(1, 4), (3, 13)])
    assert report.causal


def test_what_depends_on_the_input_is_refused_as_before(tmp_path: Path) -> None:
    class Turns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.gru(x)[0]
            return y @ torch.linalg.qr(3 * EYE + (y.transpose(1, 2) @ y).tanh())[0]

    with pytest.raises(ExportError, match="linalg_qr"):
        export(Turns(), tmp_path / "model.onnx", draw(2, 9))
