"""Architectures drawn from parts of every kind: whatever is exported answers as PyTorch, whole, ragged and in chunks."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from tests.strategies import randomize
from tests.tolerances import fixed


@dataclass(frozen=True)
class Plan:
    """front: what comes before the layer, with its stride.  layout: of the input.  head: of the output."""

    front: str
    stride: int
    layout: str
    head: str
    kind: str
    start: str


class Drawn(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.conv = nn.Conv1d(4, 4, 3, plan.stride if plan.front == "strided" else 1)
        self.layer = (nn.GRU if plan.kind == "gru" else nn.LSTM)(4, 5, batch_first=True)
        self.begin = nn.Parameter(torch.randn(1, 1, 5))

    def forward(self, x: Tensor) -> Tensor:
        plan = self.plan
        x = {"time first": lambda: x.transpose(0, 1), "channels first": lambda: x.mT}.get(plan.layout, lambda: x)()
        if plan.front in ("padded", "strided"):
            x = self.conv(F.pad(x.mT, (2, 0))).mT
        elif plan.front == "shift":
            x = x - F.pad(x[:, :-1], (0, 0, 1, 0))
        elif plan.front == "sum":
            x = torch.tanh(x.cumsum(1))
        elif plan.front == "every nth":
            x = x[:, :: plan.stride]
        h = self.begin.expand(-1, x.shape[0], -1).contiguous()
        state = {"learned": h if plan.kind == "gru" else (h, torch.zeros_like(h)), "none": None}[plan.start]
        y = self.layer(x, state)[0]
        return {"flat": lambda: y.flatten(0, 1), "time first": lambda: y.transpose(0, 1)}.get(plan.head, lambda: y)()


PLANS = st.builds(
    Plan,
    st.sampled_from(["none", "padded", "strided", "shift", "sum", "every nth"]),
    st.integers(2, 3),
    st.sampled_from(["batch first", "time first", "channels first"]),
    st.sampled_from(["plain", "flat", "time first"]),
    st.sampled_from(["gru", "lstm"]),
    st.sampled_from(["none", "learned"]),
)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """[batch, time, 4] as the module takes it."""
    return {"time first": x.transpose(0, 1), "channels first": x.mT}.get(layout, x).contiguous()


def one_row(answer: np.ndarray, head: str) -> np.ndarray:
    """[time, 5] of an answer to one row."""
    return answer[:, 0] if head == "time first" else answer if head == "flat" else answer[0]


# Not shrunk: an export takes seconds, and a plan prints as one line anyway.
@settings(max_examples=4, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@example(Plan("strided", 2, "batch first", "flat", "gru", "none"), [1, 3, 8], 0)
@given(plan=PLANS, sizes=st.lists(st.integers(1, 9), min_size=3, max_size=3, unique=True), seed=st.integers(0, 9))
def test_drawn_modules(plan: Plan, sizes: list[int], seed: int) -> None:
    module = randomize(Drawn(plan).eval(), seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        report = export(module, path, laid_out(torch.randn(2, 12, 4), plan.layout), streaming=True)
        model = runtime.load(path)
    assert report.causal
    stride = plan.stride if plan.front in ("strided", "every nth") else 1
    assert model.signature.stride == stride
    rows = [torch.randn(1, size, 4) for size in sizes]
    with torch.no_grad():
        alone = [one_row(module(laid_out(row, plan.layout)).numpy(), plan.head) for row in rows]
        batch = laid_out(torch.randn(3, 7, 4), plan.layout)
        np.testing.assert_allclose(model.run(batch.numpy()), module(batch).numpy(), atol=fixed("float32 long"))
    axis = 1 if plan.layout == "time first" else 0
    items = [laid_out(row, plan.layout).select(axis, 0).numpy() for row in rows]
    time = 1 if plan.layout == "channels first" else 0
    for own, wanted in zip(model.run(items), alone, strict=True):
        np.testing.assert_allclose(
            own if plan.head != "time first" else own.reshape(wanted.shape), wanted, atol=fixed("float32 long")
        )
    whole = torch.randn(1, stride * sum(sizes), 4)
    with torch.no_grad():
        wanted = one_row(module(laid_out(whole, plan.layout)).numpy(), plan.head)
    item = laid_out(whole, plan.layout).select(axis, 0).numpy()
    with model.stream() as stream:
        ends = [*np.cumsum(sizes).tolist(), whole.shape[1]]
        parts = [stream.push(part) for part in np.split(item, ends[:-1], axis=time)]
    np.testing.assert_allclose(np.concatenate(parts), wanted, atol=fixed("float32 long"))
