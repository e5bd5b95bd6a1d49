"""Copies of modules on which hangs what Python cannot copy."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.copying import copied

KINDS = {
    "log": lambda: logging.Logger("of.nobody"),
    "lock": threading.Lock,
    "steps": lambda: iter_of(3),
    "number": lambda: 3,
    "table": lambda: {"a": 1},
}
attributes = st.recursive(
    st.sampled_from(sorted(KINDS)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


def iter_of(n: int) -> Any:
    yield from range(n)


def made(kinds: Any) -> Any:
    if isinstance(kinds, str):
        return KINDS[kinds]()
    return [made(k) for k in kinds] if isinstance(kinds, list) else {name: made(k) for name, k in kinds.items()}


class Holds(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.gru, self.value = nn.GRU(3, 4, batch_first=True), value

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


@given(attributes)
def test_a_copy_has_weights_of_its_own_and_shares_what_cannot_be_copied(kinds: Any) -> None:
    module = nn.Sequential(Holds(made(kinds)))
    other = copied(module)
    assert all(a is not b and torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    assert type(other[0].value) is type(module[0].value)
    if isinstance(module[0].value, logging.Logger):
        assert other[0].value is module[0].value


def test_modules_with_a_log_and_a_lock_are_exported(tmp_path: Path) -> None:
    value = {"log": logging.Logger("of.nobody"), "locks": [threading.Lock()]}
    assert export(Holds(value), tmp_path / "model.onnx", torch.randn(2, 5, 3)).causal
    assert not value["locks"][0].locked()


@settings(max_examples=5)
@given(st.integers(1, 4))
def test_copies_of_copies(times: int) -> None:
    module: nn.Module = Holds(threading.Lock())
    for _ in range(times):
        module = copied(module)
    assert torch.isfinite(module(torch.randn(1, 2, 3))).all()
