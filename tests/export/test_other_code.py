"""Spellings of other people's libraries that were refused for no reason of theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.one_step import states_from_zeros
from rnncore.export.tracing.size_limits import Guard, SizeLimits
from rnncore.export.verification.sizes import Sizes
from rnncore.runtime import load
from tests.export.rolled import TOLERANCE, exported, rolled, streamed

WIDTH = 4


class AsksItsKind(nn.Module):
    """Calls a layer as its kind wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(WIDTH, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(self.layer, nn.LSTM):
            raise ValueError(f"expected an LSTM, got {type(self.layer)}")
        h = x.new_zeros(1, x.shape[0], 5)
        return self.layer(x, (h, h))[0]


class Grouped(nn.Module):
    """A layer for each half of the features; more features than these nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.GRU(2, 3, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x[..., 2 * k : 2 * (k + 1)])[0] for k, layer in enumerate(self.layers)], -1)


class Framed(nn.Module):
    """Takes the features apart again, so that any that fill up frames would do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.GRU(2 * 8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # [batch, time, 16]
        y = self.conv(x.view(x.size(0), 1, -1, 16)).transpose(1, 2).flatten(2)
        return self.layer(y)[1].squeeze(0)


class Scored(nn.Module):
    """The score of a path through a chain, looked up step by step with a list of places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.moves = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5, 5))

    def forward(self, emissions: Tensor, path: Tensor) -> Tensor:
        rows, by_time, tags = torch.arange(path.shape[0]), emissions.transpose(0, 1), path.transpose(0, 1)
        score = self.first[tags[0]] + by_time[0, rows, tags[0]]
        for t in range(1, path.shape[1]):
            score = score + self.moves[tags[t - 1], tags[t]]
            score = score + by_time[t, rows, tags[t]]
        return score


class Step(nn.Module):
    """A cell that gives its states and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(WIDTH + 5, 10)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        gate, new = self.gates(torch.cat([x, h], 1)).chunk(2, 1)
        c = torch.sigmoid(gate) * c + torch.tanh(new)
        return torch.tanh(c), c


class Named(Step):
    """Gives its gate as well, which has the shape of the states."""

    def forward(self, x: Tensor, h_0: Tensor, c_0: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        h, c = super().forward(x, (h_0, c_0))
        return {"gate": torch.sigmoid(self.gates(torch.cat([x, h_0], 1))[:, :5]), "c_n": c, "h_n": h}


def test_states_are_told_by_their_names_where_nothing_else_does() -> None:
    module = Named()
    call = Example.of(module, (torch.randn(2, WIDTH), torch.zeros(2, 5), torch.zeros(2, 5)), None, "auto")
    call = find_axes(module, call, None)
    assert states_from_zeros(module, call) == {"h_0": "h_n", "c_0": "c_n"}


@pytest.mark.slow
@pytest.mark.parametrize("make", [AsksItsKind, Grouped])
def test_they_stream(make: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = make()
    model, report = exported(
        module, tmp_path, torch.randn(2, 6, WIDTH), lambda b, t: torch.randn(b, t, WIDTH), ((1, 1), (3, 17))
    )
    assert report.causal
    x = torch.randn(12, WIDTH)
    with torch.no_grad():
        np.testing.assert_allclose(streamed(model, x, (1, 4, 7)), module(x[None])[0].numpy(), **TOLERANCE)


class Recurrently(nn.Module):
    """A policy as single-file libraries of reinforcement learning write it: rows and steps in one axis, an LSTM step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.policy = nn.LSTM(WIDTH, 5), nn.Linear(5, 3)

    def forward(self, seen: Tensor, done: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        rows = state[0].shape[1]
        given = []
        for h, ended in zip(seen.reshape(-1, rows, WIDTH), done.reshape(-1, rows), strict=False):
            on = (1.0 - ended).view(1, -1, 1)
            y, state = self.layer(h.unsqueeze(0), (on * state[0], on * state[1]))
            given += [y]
        return self.policy(torch.flatten(torch.cat(given), 0, 1)), state


@pytest.mark.parametrize("rows", [1, 2])
def test_a_policy_that_acts_in_one_place_or_several(rows: int) -> None:
    state = (torch.zeros(1, rows, 5), torch.zeros(1, rows, 5))
    call = Example.of(Recurrently(), (torch.randn(rows, WIDTH), torch.zeros(rows), state), None, "auto")
    call = find_axes(Recurrently().eval(), call, None)
    assert [own.axes for own in call.inputs] == [("batch", None), ("batch",), *[(None, "batch", None)] * 2]


class Lines(nn.Module):
    """Reads images of a line: columns of convolutions, averaged over the height."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.MaxPool2d(4, 4), nn.Conv2d(4, 6, 2))
        self.pool, self.layer = nn.AdaptiveAvgPool2d((None, 1)), nn.GRU(6, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:  # [batch, 1, height, width]
        y = self.pool(self.convs(x).permute(0, 3, 1, 2)).squeeze(3)
        return self.layer(y)[0]


@pytest.mark.slow
def test_a_height_that_decides_the_way_is_held(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = ((1, 12), (3, 40))
    _, report = exported(Lines(), tmp_path, torch.randn(2, 1, 24, 32), lambda b, t: torch.randn(b, 1, 24, t), sizes)
    assert any("x axis 2 to 24" in remark for remark in report.verification["remarks"])


class Tagged(nn.Module):
    """Features of which the last is an id, as a float."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(9, 5), nn.GRU(3 + 5, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.cat([x[..., :3], self.table(x[..., 3].long())], -1))[0]


def tagged(batch: int, time: int) -> Tensor:
    return torch.cat([torch.randn(batch, time, 3), torch.randint(9, (batch, time, 1)).float()], -1)


def test_floats_that_hold_whole_numbers_are_drawn_as_such() -> None:
    generator = torch.Generator().manual_seed(0)
    example = Example.of(Tagged(), tagged(4, 30), None, "auto")
    (drawn,) = example.draw({"batch": 5, "time": 40}, generator)
    assert torch.equal(drawn[..., 3], drawn[..., 3].floor()) and 0 <= drawn[..., 3].min() <= drawn[..., 3].max() <= 8
    assert not torch.equal(drawn[..., :3], drawn[..., :3].floor())
    for plain in (torch.zeros(4, 30, 4), torch.ones(4, 30, 4), (torch.rand(4, 30, 4) < 0.5).float()):
        (drawn,) = Example.of(Tagged(), plain, None, "auto").draw({"batch": 5, "time": 40}, generator)
        assert not torch.equal(drawn, drawn.floor())


@pytest.mark.slow
def test_ids_among_the_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, report = exported(Tagged(), tmp_path, tagged(2, 12), tagged, ((1, 3), (3, 17)))
    assert report.causal, report.signature.not_causal_because


@pytest.mark.slow
def test_frames_that_are_made_of_all_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = ((1, 3), (3, 17))
    exported(Framed(), tmp_path, torch.randn(2, 9, 16), lambda b, t: torch.randn(b, t, 16), sizes)


def test_features_that_are_cut_out_are_no_free_axis() -> None:
    found = find_axes(Grouped(), Example.of(Grouped(), torch.randn(2, 6, WIDTH), None, "auto"), None)
    assert found.inputs[0].axes == ("batch", "time", None)
    found = find_axes(Framed(), Example.of(Framed(), torch.randn(2, 9, 16), None, "auto"), None)
    assert found.inputs[0].axes == ("batch", "time", None)


def test_places_of_a_step_in_a_list() -> None:
    torch.manual_seed(0)
    module = Scored()
    program = rolled(module, (torch.randn(2, 8, 5), torch.randint(5, (2, 8))))
    assert program is not None
    x, path = torch.randn(4, 19, 5), torch.randint(5, (4, 19))
    (got,) = program(x, path).values()
    torch.testing.assert_close(got, module(x, path), **TOLERANCE)


@pytest.mark.slow
def test_a_cell_of_nothing_but_states_gives_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, zeros = Step().eval(), torch.zeros(2, 5)
    report = export(module, tmp_path / "model.onnx", (torch.randn(2, WIDTH), (zeros, zeros)))
    assert report.causal and len(report.signature.states) == 2
    x, state, wanted = torch.randn(3, 7, WIDTH), (torch.zeros(3, 5), torch.zeros(3, 5)), []
    with torch.no_grad():
        for t in range(7):
            state = module(x[:, t], state)
            wanted.append(torch.stack(state))
    got = load(report.path).run(x.numpy())
    for k, name in enumerate(("output_0", "output_1")):
        np.testing.assert_allclose(got[name], torch.stack(wanted, 2)[k].numpy(), **TOLERANCE)


def test_a_question_that_turns_below_what_an_axis_takes_refuses_nothing() -> None:
    guard = Guard("height // 4 != 1", "a line", True, ("height",), (4,), lambda sizes: sizes["height"] // 4 != 1)
    limits = SizeLimits((guard,))
    assert Sizes.of(limits, 6, ("batch", "time", "height")).unchecked
    assert Sizes.of(limits, 6, ("batch", "time", "height"), {"height": 7}).unchecked
    assert not Sizes.of(limits, 6, ("batch", "time", "height"), {"height": 8}).unchecked
