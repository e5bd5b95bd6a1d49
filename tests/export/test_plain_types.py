"""Code that asks for the very type of a tensor answers in a file as in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.plain_types import plain_types


class _Asks(nn.Module):
    """Takes what is a tensor, by its type; ``by``: how it asks."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by, self.gru = by, nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.by == "==":
            parts = [v for v in (x, None) if type(v) == torch.Tensor]  # noqa: E721
        elif self.by == "is":
            parts = [v for v in (x, None) if type(v) is torch.Tensor]
        else:
            assert type(self.gru.weight_ih_l0) is nn.Parameter
            assert isinstance(nn.GRU, type) and not isinstance(x, type) and issubclass(type(nn.GRU), type)
            assert type("Made", (), {}).__name__ == "Made"
            parts = [{torch.Tensor: x, nn.Parameter: x * 0}[type(x * 1)]]
        return self.gru(torch.cat(parts, 2))[0]


@pytest.mark.parametrize("by", ["==", "is", "other"])
def test_the_type_of_a_traced_tensor_is_that_of_a_plain_one(by: str, tmp_path: Path) -> None:
    report: Any = export(_Asks(by).eval(), tmp_path / "asks.onnx", torch.randn(2, 8, 3))
    assert report.causal


def test_the_files_of_the_module_are_as_before() -> None:
    with pytest.raises(KeyError), plain_types(_Asks("is")):
        assert type is not int.__class__
        raise KeyError
    assert "type" not in globals()
