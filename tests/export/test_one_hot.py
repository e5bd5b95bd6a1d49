"""One-hot rows beside and inside of loops over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.runtime.errors import InputError
from tests.tolerances import fixed

CLASSES = 6


class Before(nn.Module):
    """All rows at once, then a loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(CLASSES, 5)

    def forward(self, ids: Tensor) -> Tensor:
        h, outputs, x = torch.zeros(ids.shape[0], 5), [], F.one_hot(ids, CLASSES).float()
        for t in range(ids.shape[1]):
            h = self.cell(x[:, t], h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class InEachStep(Before):
    """The rows of a step in that step."""

    def forward(self, ids: Tensor) -> Tensor:
        h, outputs = torch.zeros(ids.shape[0], 5), []
        for t in range(ids.shape[1]):
            h = self.cell(F.one_hot(ids[:, t], num_classes=CLASSES).float(), h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class FedBack(Before):
    """What was chosen, as the input of the next step."""

    def forward(self, ids: Tensor) -> Tensor:
        h, outputs = torch.zeros(ids.shape[0], 5), []
        chosen = torch.zeros(ids.shape[0], dtype=torch.int64)
        for t in range(ids.shape[1]):
            h = self.cell((F.one_hot(ids[:, t], CLASSES) + F.one_hot(chosen, CLASSES)).float(), h)
            chosen = h.argmax(1)
            outputs.append(h)
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("kind", [Before, InEachStep, FedBack])
def test_rows_beside_and_inside_a_loop(kind: type[Before], tmp_path: Path) -> None:
    module = kind().eval()
    report = export(module, tmp_path / "m.onnx", torch.randint(0, CLASSES, (2, 9)))
    model = runtime.load(report.path)
    assert report.causal
    for batch, steps in ((1, 1), (3, 20)):
        ids = torch.randint(0, CLASSES, (batch, steps))
        with torch.no_grad():
            np.testing.assert_allclose(model.run(ids.numpy()), module(ids).numpy(), atol=fixed("float32"))
    with pytest.raises(InputError, match=f"the model knows 0 to {CLASSES - 1}"):  # PyTorch refuses it, too
        model.run(np.full((1, 3), CLASSES))


def test_as_many_classes_as_ids_need_is_a_question_about_values(tmp_path: Path) -> None:
    class Counting(Before):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids) * F.one_hot(ids).shape[-1]

    with pytest.raises(runtime.errors.ExportError, match="reads the value of a tensor"):
        export(Counting().eval(), tmp_path / "m.onnx", torch.randint(0, CLASSES, (2, 9)))
