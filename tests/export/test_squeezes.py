"""``squeeze()`` without an axis: what it drops at a batch or a time of 1 stays in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore.export import export
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.squeezes import keeping_axes
from rnncore.runtime import load
from rnncore.runtime.errors import ExportError
from tests.export.rolled import TOLERANCE

WIDTH = 4


class Scores(nn.Module):
    """One number a step: of [batch, time, 1] the last axis is meant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.GRU(WIDTH, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0]).squeeze()


class Last(Scores):
    """Of [1, batch, 5] the first axis is meant."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(torch.squeeze(self.layer(x)[1]))


class Attends(Scores):
    """Fails for a batch of 1, where the weights have no axis of rows any more."""

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.layer(x)
        weights = torch.softmax(self.head(y).squeeze(), dim=1)
        return torch.bmm(weights.unsqueeze(1), y).squeeze(1)


class Steps(nn.Module):
    """A loop that takes [batch, 1, features] out of the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        h, found = x.new_zeros(x.size(0), 5), []
        for t in range(x.size(1)):
            h = self.cell(x[:, t : t + 1].squeeze(), h)
            found.append(h)
        return torch.stack(found, 1)


class Normalises(Scores):
    """Of one row it takes the softmax over another axis: other numbers, not another shape."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(self.layer(x)[0]).squeeze()
        return torch.softmax(scores, 0) if scores.dim() == 1 else torch.sigmoid(scores)


class Named(Scores):
    """Says which axis."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0]).squeeze(-1)


def kept(module: nn.Module, x: Tensor) -> tuple[nn.Module, list[str]]:
    module.eval()
    return keeping_axes(module, Example.of(module, x, None, "auto"))


@pytest.mark.parametrize("make", [Scores, Last, Attends, Steps])
@torch.no_grad()
def test_rows_alone_are_rows_of_a_batch(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module, remarks = kept(make(), torch.randn(2, 6, WIDTH))
    assert len(remarks) == 1 and "test_squeezes.py" in remarks[0]
    for time in (1, 6):
        x = torch.randn(3, time, WIDTH)
        whole = module(x)
        assert whole.shape[0] == 3
        for row in range(3):
            torch.testing.assert_close(module(x[row : row + 1])[0], whole[row], **TOLERANCE)


@pytest.mark.parametrize("make", [Normalises, Named])
def test_what_gives_other_numbers_stays_as_it_is(make: type[nn.Module]) -> None:
    module = make()
    found, remarks = kept(module, torch.randn(2, 6, WIDTH))
    assert type(found) is make and not remarks


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_the_file_keeps_the_batch_axis(batch: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Scores().eval()
    report = export(module, tmp_path / "model.onnx", torch.randn(batch, 6, WIDTH))
    assert report.causal and any("squeeze()" in remark for remark in report.verification["remarks"])
    model = load(report.path)
    x = torch.randn(3, 9, WIDTH)
    np.testing.assert_allclose(model.run(x.numpy()), module(x).detach().numpy(), **TOLERANCE)
    with torch.no_grad():
        np.testing.assert_allclose(model.run(x[:1].numpy())[0], module(x[:1]).numpy(), **TOLERANCE)


def test_other_numbers_of_one_row_are_refused_by_the_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"(?s)a batch of 1.*test_squeezes\.py"):
        export(Normalises().eval(), tmp_path / "model.onnx", torch.randn(2, 6, WIDTH))


AXES = {"x": ("batch", "time", None)}


class Doubles(Scores):
    """Other numbers of one row, however many steps there are."""

    def forward(self, x: Tensor) -> Tensor:
        last = self.layer(x)[1].squeeze()
        return 2 * last if last.dim() == 1 else torch.sigmoid(last)


def test_one_row_is_what_it_is_among_others_where_the_caller_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Doubles().eval(), torch.randn(3, 9, WIDTH)
    report = export(module, tmp_path / "model.onnx", torch.randn(2, 6, WIDTH), axes=AXES)
    assert "of one row alone forward makes other numbers" in str(report) and "test_squeezes.py" in str(report)
    model = load(report.path)
    with torch.no_grad():
        whole = module(x).numpy()
    np.testing.assert_allclose(model.run(x.numpy()), whole, **TOLERANCE)
    np.testing.assert_allclose(model.run(x[:1].numpy()), whole[:1], **TOLERANCE)


class Mixes(Scores):
    """Its rows know of each other, so that one alone is none of several."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(self.layer(x)[0][:, -1]).squeeze()
        return torch.softmax(scores, 0) if scores.dim() else scores


def test_rows_that_know_of_each_other_are_refused_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        export(Mixes().eval(), tmp_path / "model.onnx", torch.randn(2, 6, WIDTH), axes=AXES)


class Asks(Scores):
    """Asks whether squeeze() left one axis only, and then drops another one."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(self.layer(x)[0])
        return scores.squeeze(2) if scores.squeeze().dim() == 1 else scores.squeeze()


def test_a_question_about_what_is_left_is_answered_as_for_several_rows(tmp_path: Path) -> None:
    module = Asks().eval()
    model = load(export(module, tmp_path / "model.onnx", torch.randn(2, 6, WIDTH)).path)
    for rows in (1, 3):
        x = torch.randn(rows, 9, WIDTH)
        with torch.no_grad():
            np.testing.assert_allclose(model.run(x.numpy()), module(x).numpy(), **TOLERANCE)


class Packs(nn.Module):
    """Packs only where a row ends early, with lengths from which ``squeeze()`` drops the axis of one row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(WIDTH, 5, bidirectional=True)

    def forward(self, x: Tensor, x_mask: Tensor) -> Tensor:
        if x_mask.data.sum() == 0:
            return self.layer(x.transpose(0, 1))[0].transpose(0, 1)
        lengths = x_mask.data.eq(0).long().sum(1).squeeze()
        _, order = torch.sort(lengths, dim=0, descending=True)
        _, back = torch.sort(order, dim=0)
        packed = pack_padded_sequence(x.index_select(0, order).transpose(0, 1), list(lengths[order]))
        y = pad_packed_sequence(self.layer(packed)[0], total_length=x.size(1))[0]
        return y.transpose(0, 1).index_select(0, back)


def test_a_way_that_is_gone_where_a_row_ends_keeps_axes_too(tmp_path: Path) -> None:
    module = Packs().eval()
    example = (torch.randn(2, 6, WIDTH), torch.zeros(2, 6, dtype=torch.bool))
    model = load(export(module, tmp_path / "model.onnx", example).path)
    x, ends = torch.randn(3, 8, WIDTH), torch.tensor([[8], [5], [2]])
    mask = torch.arange(8) >= ends
    with torch.no_grad():
        right = module(x, mask).numpy()
    got = model.run(x.numpy(), mask.numpy())
    for row in range(3):
        n = int(ends[row])
        np.testing.assert_allclose(got[row, :n], right[row, :n], **TOLERANCE)
        alone = model.run(x[row : row + 1].numpy(), mask[row : row + 1].numpy())
        np.testing.assert_allclose(alone[0, :n], right[row, :n], **TOLERANCE)


class Sums(Scores):
    """A batch of 1 is another matter by its own code."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.layer(x)[0][:, -1])
        return y.view(-1) if len(x) > 1 else y


class Checks(Scores):
    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("too few rows")
        return self.head(self.layer(x)[0])


class Counts(Scores):
    """Reads lengths that are no tensor."""

    def forward(self, x: Tensor, lengths: np.ndarray) -> Tensor:
        return self.head(self.layer(x)[0][torch.arange(len(x)), torch.from_numpy(lengths)])


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        (Sums, (), "answers in another shape for a batch of 1 than for more"),
        (Checks, (), r"(?s)fails for a batch of 1.*ValueError: too few rows.*test_squeezes\.py"),
        (Counts, (np.array([2, 3]),), r"numpy\.ndarray, which stays as it is in every call"),
    ],
    ids=["sums", "checks", "counts"],
)
def test_other_reasons_are_not_called_squeeze(
    make: type[nn.Module], more: tuple[np.ndarray, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export(make().eval(), tmp_path / "model.onnx", (torch.randn(2, 6, WIDTH), *more))
    assert "squeeze()" not in str(caught.value)


class OneStep(nn.Module):
    """A step of a forecaster: one number for each row of [batch, 1], and its states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.mean = nn.LSTM(WIDTH, 5, 2), nn.Linear(10, 1)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, (hidden, cell) = self.lstm(x.unsqueeze(0), (hidden, cell))
        flat = hidden.permute(1, 2, 0).contiguous().view(hidden.shape[1], -1)
        return torch.squeeze(self.mean(flat)), hidden, cell


def test_a_step_keeps_the_batch_axis_and_streams(tmp_path: Path) -> None:
    torch.manual_seed(0)
    step, zeros = OneStep().eval(), torch.zeros(2, 3, 5)
    report = export(step, tmp_path / "model.onnx", (torch.randn(3, WIDTH), zeros, zeros))
    assert report.causal and "squeeze()" in str(report)
    x, states, wanted = torch.randn(2, 6, WIDTH), (torch.zeros(2, 2, 5),) * 2, []
    with torch.no_grad():
        for t in range(6):
            y, *states = step(x[:, t], *states)
            wanted.append(y)
    model = load(report.path)
    np.testing.assert_allclose(model.run(x.numpy()), torch.stack(wanted, 1).numpy(), **TOLERANCE)
    with model.stream() as stream:
        got = np.concatenate([stream.push(x[0, t : t + 1].numpy()) for t in range(6)])
    np.testing.assert_allclose(got, torch.stack(wanted, 1)[0].numpy(), **TOLERANCE)


class TimeFirst(nn.Module):
    """One row makes another number of it: ``squeeze()`` drops the batch, and the mean is that of something else."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(x)[0].squeeze()
        return y - y.mean(1, keepdim=True)


def test_refusal_says_which_axis_is_the_batch(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"axes=\{'x': \('time', 'batch', None\)\} says"):
        export(TimeFirst().eval(), tmp_path / "m.onnx", torch.randn(7, 3, 3))
