"""Outputs that are left out: a loss, which belongs to no row, weights of attention; and what loops compute for them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from rnncore.export import export
from rnncore.export.tracing.chosen_outputs import chosen_names, left_out_by, with_chosen_outputs
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError, InputError
from tests.tolerances import fixed

BOUND = {"rtol": 0, "atol": fixed("float32 two hosts")}


class Attended(nn.Module):
    """What attention gives beside its answer has two time axes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.attention = nn.GRU(3, 4, batch_first=True), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h = self.layer(x)
        return *self.attention(y, y, y), h


class Imputer(nn.Module):
    """Fills in what is missing, step by step, and adds up a loss over all rows on the way."""

    def __init__(self, every: str = "loss") -> None:
        super().__init__()
        self.cell, self.guess, self.every = nn.GRUCell(6, 5), nn.Linear(5, 3), every

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        values, masks = data["values"], data["masks"]
        h, loss, filled = torch.zeros(len(values), 5), 0.0, []
        for t in range(values.shape[1]):
            x, m = values[:, t], masks[:, t]
            guess = self.guess(h)
            loss = loss + torch.sum(torch.abs(x - guess) * m) / (torch.sum(m) + 1e-5)
            x = m * x + (1 - m) * guess
            h = self.cell(torch.cat([x, m], 1), h)
            filled.append(x)
        return {"filled": torch.stack(filled, 1), "loss": torch.as_tensor(loss)}


class Predicted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, target: Tensor, *, scale: float = 2.0) -> dict[str, Tensor]:
        y, _ = self.layer(x)
        return {"y": y * scale, "loss": F.mse_loss(y, target), "size": self.layer.weight_ih_l0.norm()}


def measured(b: int = 2, t: int = 7) -> dict[str, Tensor]:
    return {"values": torch.randn(b, t, 3), "masks": (torch.rand(b, t, 3) > 0.3).float()}


CASES: dict[str, tuple[Any, Any, list[str | None], str]] = {
    "attention": (
        Attended,
        lambda: torch.randn(2, 7, 3),
        ["y", None, "h"],
        r"output 'output_1' of shape \[batch, time, time\] has 2 time axes, expected at most one; "
        r"output_names=\['output_0', None, 'output_2'\] leaves it out$",
    ),
    "loss": (
        Predicted,
        lambda: (torch.randn(2, 7, 3), torch.randn(2, 7, 4)),
        ["y", None, None],
        r"output 'size' of shape \[\] has 0 batch axes, expected exactly one; output_names=\['y', None, None\] leaves "
        "them out$",
    ),
    "loss of a loop": (
        Imputer,
        measured,
        ["filled", None],
        r"a value that it carries has no batch axis, so rows cannot be kept apart\n.*, in forward\n"
        r"  An output belongs to no row; output_names=\['filled', None\] leaves it out$",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_refusal_names_what_to_do_and_that_works(case: str, tmp_path: Path) -> None:
    make, draw, names, refusal = CASES[case]
    torch.manual_seed(1)
    module, example = make().eval(), draw()
    given = example if isinstance(example, tuple) else (example,)
    with pytest.raises(ExportError, match=refusal):
        export(module, tmp_path / "m.onnx", given)
    export(module, tmp_path / "m.onnx", given, output_names=names)
    model = load(tmp_path / "m.onnx")
    kept = [name for name in names if name is not None]
    assert list(model.outputs) == kept
    arrays = [v.numpy() for a in given for v in (a.values() if isinstance(a, dict) else [a])]
    found = model.run(*arrays)
    found = found if isinstance(found, dict) else {kept[0]: found}
    with torch.no_grad():
        answer = module(*given)
    tensors = list(answer.values() if isinstance(answer, dict) else answer)
    for name, tensor in zip(names, tensors, strict=True):
        if name is not None:
            got = found[name] if name != "h" else found[name][None] if found[name].ndim == 2 else found[name]
            np.testing.assert_allclose(got, tensor.numpy(), **BOUND)


def test_a_loop_streams_without_the_loss_that_it_added_up(tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = Imputer().eval()
    export(module, tmp_path / "m.onnx", (measured(),), output_names=["filled", None], streaming=True)
    data = measured(1, 9)
    with load(tmp_path / "m.onnx").stream() as stream, torch.no_grad():
        parts = [stream.push(*(v[0, a:b].numpy() for v in data.values())) for a, b in ((0, 1), (1, 4), (4, 9))]
        np.testing.assert_allclose(np.concatenate(parts), module(data)["filled"][0].numpy(), **BOUND)


@pytest.mark.parametrize(
    ("names", "error", "says"),
    [
        ([None, None, None], InputError, "which leaves out all outputs: expected a name for one at least"),
        (["y", None], ExportError, "output_names has 2 names, the module returns 3 tensors"),
        (["y", "y", None], InputError, "expected a name of its own for each output"),
    ],
)
def test_names_that_do_not_fit(names: list[str | None], error: type[Exception], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        export(
            Predicted().eval(),
            tmp_path / "m.onnx",
            (torch.randn(2, 7, 3), torch.randn(2, 7, 4)),
            output_names=names,
        )
    assert not (tmp_path / "m.onnx").exists()


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True, min_size=1), st.data())
def test_what_is_left_out_is_said_with_the_names_of_all(names: list[str], data: st.DataObject) -> None:
    unwanted = data.draw(st.sets(st.sampled_from(names)))
    said = left_out_by(names, unwanted)
    if not unwanted or len(unwanted) == len(names):
        assert said == ""
        return
    kept = [None if name in unwanted else name for name in names]
    assert said == f"; output_names={kept} leaves {'it' if len(unwanted) == 1 else 'them'} out"


def test_arguments_of_forward_stay_as_they_are() -> None:
    module, names = with_chosen_outputs(Predicted(), ["y", None, None])
    x, target = torch.randn(2, 3, 3), torch.randn(2, 3, 4)
    assert names == ["y"] and type(module).__name__ == "Predicted"
    torch.testing.assert_close(module(x, target=target, scale=3.0)["y"], module(x, target)["y"] * 1.5)
    same, given_names = with_chosen_outputs(module, ["z"])
    assert same is module and given_names == ["z"]
    assert chosen_names(["", "0", "logits"]) == ["output_", "output_0", "logits"]
