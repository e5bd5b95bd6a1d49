"""Sparse matrices that a module holds, such as the adjacency of a graph, are dense in its file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.export.rolled import exported

NODES = 4
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sparse.mm": lambda a, z: torch.sparse.mm(a.float(), z),
    "@": lambda a, z: a @ z,
    "spmm": lambda a, z: torch.spmm(a, z),
    "addmm": lambda a, z: torch.sparse.addmm(z, a, z, beta=0.5, alpha=2.0),
    "to_dense": lambda a, z: a.to_dense() @ z,
}


class Graph(nn.Module):
    """A recurrence over the nodes of a graph; ``where`` its matrix is held: a buffer, an attribute, a list."""

    def __init__(self, product: str, where: str, *, rows: bool, loop: bool) -> None:
        super().__init__()
        dense = torch.rand(NODES, NODES) * (torch.rand(NODES, NODES) > 0.4)
        with warnings.catch_warnings(action="ignore"):
            sparse = dense.to_sparse_csr() if rows else dense.to_sparse_coo()
        if where == "buffer":
            self.register_buffer("matrix", sparse)
        self.held = [sparse] if where == "list" else sparse if where == "attribute" else None
        self.weight, self.gru = nn.Linear(3, 3), nn.GRU(3 * NODES, 3 * NODES, batch_first=True)
        self._product, self._loop = PRODUCTS[product], loop

    def forward(self, x: Tensor) -> Tensor:  # [batch, time, nodes, 3]
        matrix = self.matrix if self.held is None else self.held[0] if isinstance(self.held, list) else self.held
        if not self._loop:
            near = self._product(matrix, x.permute(2, 3, 1, 0).reshape(NODES, -1))
            y = near.reshape(NODES, 3, x.shape[1], x.shape[0]).permute(3, 2, 0, 1)
            return self.gru(y.flatten(2))[0]
        h, outputs = x.new_zeros(x.shape[0], NODES, 3), []
        for t in range(x.shape[1]):
            near = self._product(matrix, (x[:, t] + h).permute(1, 2, 0).reshape(NODES, -1))
            h = torch.tanh(self.weight(near.reshape(NODES, 3, -1).permute(2, 0, 1)))
            outputs.append(h)
        return torch.stack(outputs, 1)


@pytest.mark.parametrize(
    ("product", "where", "rows", "loop"),
    [
        ("sparse.mm", "attribute", False, True),
        ("sparse.mm", "buffer", False, False),
        ("@", "list", True, True),
        ("spmm", "attribute", False, False),
        ("addmm", "buffer", False, True),
        ("addmm", "list", False, False),
        ("to_dense", "buffer", False, True),
    ],
)
def test_they_are_exported_at_every_size(product: str, where: str, rows: bool, loop: bool, tmp_path: Path) -> None:
    draw = lambda b, t: torch.randn(b, t, NODES, 3)  # noqa: E731
    module = Graph(product, where, rows=rows, loop=loop)
    _, report = exported(module, tmp_path, draw(2, 9), draw, [(1, 4), (3, 13)])
    assert report.causal
    held = module.matrix if module.held is None else module.held[0] if isinstance(module.held, list) else module.held
    assert held.layout != torch.strided  # the user's own is as it was
