"""Linear algebra of small matrices that inputs decide, written out, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.small_algebra import MOST
from rnncore.export.tracing.torch_onnx import to_onnx
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.tolerances import fixed

BOUND = {"rtol": fixed("float32 two hosts"), "atol": fixed("float32 two hosts")}


class Applied(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a, b)


def positive(a: Tensor) -> Tensor:
    return a @ a.transpose(-1, -2) + torch.eye(a.shape[-1])


def triangle(a: Tensor) -> Tensor:
    """Well conditioned, with numbers on the other side that nobody is to read."""
    return a + 3 * torch.eye(a.shape[-1])


SQUARE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "inverse": lambda a, b: torch.linalg.inv(a) @ b,
    "solution": torch.linalg.solve,
    "solution from the right": lambda a, b: torch.linalg.solve(a, b.transpose(-1, -2), left=False),
    "solution of a vector": lambda a, b: torch.linalg.solve(a, b[..., 0]),
    "Cholesky": lambda a, b: torch.linalg.cholesky(positive(a)),
    "Cholesky, upper": lambda a, b: torch.linalg.cholesky(positive(a), upper=True),
    "Cholesky solution": lambda a, b: torch.cholesky_solve(b, torch.linalg.cholesky(positive(a))),
    "Cholesky solution, upper": lambda a, b: torch.cholesky_solve(
        b, torch.linalg.cholesky(positive(a), upper=True), upper=True
    ),
    "lower triangle": lambda a, b: torch.linalg.solve_triangular(triangle(a), b, upper=False),
    "upper triangle": lambda a, b: torch.linalg.solve_triangular(triangle(a), b, upper=True),
    "triangle of ones": lambda a, b: torch.linalg.solve_triangular(a / 4, b, upper=False, unitriangular=True),
    "triangle from the right": lambda a, b: torch.linalg.solve_triangular(
        triangle(a), b.transpose(-1, -2), upper=True, left=False
    ),
}


def both(function: Callable[..., Tensor], a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What PyTorch and the file answer; the batch of the trace is another one."""
    dims = {0: torch.export.Dim.DYNAMIC}
    example = (torch.cat([a, a, a])[:3], torch.cat([b, b, b])[:3])
    model = to_onnx(Applied(function).eval(), example, (dims, dims), what="it")
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    (found,) = session.run(None, {name: value.numpy() for name, value in zip(names, (a, b), strict=True)})
    return function(a, b).numpy(), found


def compare(name: str, rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # A permutation in front: without a pivot, zeros on the diagonal would divide.
    moved = torch.eye(rows)[torch.randperm(rows, generator=generator)]
    a = 4 * moved + 0.5 * torch.rand(2, rows, rows, generator=generator)
    b = torch.randn(2, rows, columns, generator=generator)
    expected, found = both(SQUARE[name], a, b)
    np.testing.assert_allclose(found, expected, **BOUND)


@pytest.mark.parametrize("name", list(SQUARE))
def test_small_matrices_are_as_in_torch(name: str) -> None:
    compare(name, 4, 2, 11)


@pytest.mark.parametrize(("rows", "columns", "seed"), [(1, 3, 1), (2, 1, 2), (6, 1, 3)])
def test_matrices_of_other_sizes_are_as_in_torch(rows: int, columns: int, seed: int) -> None:
    compare("solution", rows, columns, seed)


@pytest.mark.parametrize("rows", [17, 33, 64])
@pytest.mark.parametrize("name", [name for name in SQUARE if "triangle" in name])
def test_large_triangles_are_solved_by_doubling(name: str, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    a = (torch.rand(2, rows, rows, generator=generator) - 0.5) * 0.4
    expected, found = both(SQUARE[name], a, torch.randn(2, rows, 3, generator=generator))
    np.testing.assert_allclose(found, expected, **BOUND)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_distances(p: float) -> None:
    a, b = torch.randn(2, 4, 3), torch.randn(2, 5, 3)
    expected, found = both(lambda x, y: torch.cdist(x, y, p), a, b)
    np.testing.assert_allclose(found, expected, **BOUND)


class Kalman(nn.Module):
    """A filter whose noise depends on what is measured, so that its gains are no constants."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.moves, self.seen = nn.Parameter(0.9 * torch.eye(size)), nn.Parameter(torch.randn(2, size))
        self.size = size

    def forward(self, y: Tensor) -> Tensor:
        mean, spread = y.new_zeros(len(y), self.size, 1), torch.eye(self.size).expand(len(y), -1, -1)
        given = []
        for t in range(y.shape[1]):
            mean = self.moves @ mean
            spread = self.moves @ spread @ self.moves.T + 0.1 * torch.eye(self.size) * (1 + y[:, t, :1, None] ** 2)
            around = self.seen @ spread @ self.seen.T + 0.5 * torch.eye(2)
            gain = spread @ self.seen.T @ torch.linalg.inv(around)
            mean = mean + gain @ (y[:, t, :, None] - self.seen @ mean)
            spread = spread - gain @ self.seen @ spread
            given.append(mean[..., 0])
        return torch.stack(given, 1)


def test_a_filter_streams(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Kalman().eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, 2), streaming=True)
    y = torch.randn(1, 9, 2)
    with load(tmp_path / "m.onnx").stream() as stream, torch.no_grad():
        found = np.concatenate([stream.push(part.numpy()) for part in y[0].split([1, 4, 1, 3])])
        np.testing.assert_allclose(found, module(y)[0].numpy(), **BOUND)


def test_large_matrices_are_refused_with_their_size() -> None:
    rows = MOST + 1
    with pytest.raises(ExportError, match=rf"^linalg_inv of matrices of {rows} rows at .*: ONNX has no operator"):
        both(SQUARE["inverse"], torch.eye(rows).expand(2, -1, -1), torch.randn(2, rows, 1))
