"""Recorded gates obey the equations of their cells, and give the states of the layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rnncore
from rnncore.plots.gate_map import plot_gates
from rnncore.plots.gates import gates
from rnncore.plots.text_gates import TextGates, text_gates
from rnncore.runtime.errors import InputError
from rnncore.text import word_vocabulary
from tests.cells.variants import VARIANTS
from tests.strategies import randomize

NAMES = {
    "lstm": ["input", "forget", "candidate", "output", "c", "h"],
    "rnn": ["h"],
    "gru": ["reset", "update", "candidate", "h"],
    "min_gru": ["keep", "added", "h"],
    "min_lstm": ["keep", "added", "h"],
}


def example(name: str) -> tuple[rnncore.Cell, Tensor, tuple[Tensor, ...]]:
    cell = randomize(VARIANTS[name].build(5).double(), seed=3)
    random = torch.Generator().manual_seed(7)
    x = torch.randn(3, 7, 5, dtype=torch.float64, generator=random)
    state = tuple(torch.randn(part.shape, dtype=torch.float64, generator=random) for part in cell.initial_state(3, x))
    return cell, x, state


@pytest.mark.parametrize("name", VARIANTS)
def test_gates_obey_the_equations_and_states_are_those_of_the_layer(name: str) -> None:
    cell, x, state = example(name)
    found = gates(cell, x, state)
    expected = [gate for gate in NAMES[VARIANTS[name].kind]]
    options = VARIANTS[name].options
    if options.get("coupled"):
        expected.remove("input")
    if VARIANTS[name].kind == "gru" and options["reset"] is None:
        expected.remove("reset")
    assert list(found) == expected
    y, end = rnncore.Recurrent(cell, fused=False)(x, state)
    for part, values in zip(cell.state_sizes, end, strict=True):
        torch.testing.assert_close(found[part][:, -1], values)
    if "c" not in found and not options.get("projection"):
        torch.testing.assert_close(found["h"], y)
    state_name = "c" if "c" in found else "h"
    before = torch.cat((state[-1].unsqueeze(1), found[state_name][:, :-1]), 1)
    if "forget" in found:
        update = found.get("input", 1.0 - found["forget"])
        torch.testing.assert_close(found["c"], found["forget"] * before + update * found["candidate"])
        if not options.get("projection") and not options.get("layer_norm"):
            torch.testing.assert_close(found["h"], found["output"] * torch.tanh(found["c"]))
    if "update" in found:
        torch.testing.assert_close(found["h"], (1 - found["update"]) * found["candidate"] + found["update"] * before)
    if "keep" in found:
        torch.testing.assert_close(found["h"], found["keep"] * before + found["added"])


def test_the_reset_gate_comes_before_the_update_gate() -> None:
    """The blocks of both are alike but for their names; a large bias tells them apart."""
    cell, x, _ = example("gru reset=before")
    with torch.no_grad():
        cell.bias_ih[:11] = 50.0
    found = gates(cell, x)
    assert found["reset"].min() > 0.999
    assert found["update"].min() < 0.9


def test_a_cell_of_ones_own_shows_its_states_and_is_left_alone() -> None:
    class Leaky(rnncore.Cell):
        def __init__(self) -> None:
            super().__init__(3, 2, {"s": 2})
            self.linear = nn.Linear(3, 2)

        def project(self, x: Tensor) -> Tensor:
            return torch.tanh(self.linear(x))

        def step(self, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            s = 0.9 * s + z
            return s, s

    cell, x = Leaky(), torch.randn(2, 5, 3)
    before = dict(vars(cell))
    found = gates(cell, x)
    assert list(found) == ["s"]
    torch.testing.assert_close(found["s"], rnncore.Recurrent(cell)(x)[0].detach())
    assert vars(cell) == before
    assert gates(cell, x[:, :0]) == {}
    with pytest.raises(InputError, match=r"x has shape \(5, 3\), expected \[batch, time, 3\]"):
        gates(cell, x[0])


TEXT = "the cats, which ate fish, were full."
WORDS = word_vocabulary([TEXT])


def language_model() -> rnncore.LanguageModel:
    torch.manual_seed(3)
    cells = (rnncore.CellConfig.named("gru", 7), rnncore.CellConfig.named("peephole-lstm", 11))
    return rnncore.LanguageModel(rnncore.LanguageModelConfig(len(WORDS), 5, cells, dropout=0.5)).train()


def test_the_gates_of_a_layer_of_a_language_model() -> None:
    model = language_model()
    recorded = text_gates(model, WORDS, TEXT)
    assert recorded.tokens == ("<eos>", "the", "cats", ",", "which", "ate", "fish", ",", "were", "full", ".")
    assert {values.shape for values in recorded.values.values()} == {(11, 11)}
    assert model.training
    ids = torch.tensor([[WORDS.eos_id, *WORDS.encode(TEXT).tolist()]])
    _, state = model.eval().forward_with_state(ids)
    torch.testing.assert_close(recorded.values["c"][-1], state[1][1][0].detach())
    lower = text_gates(model, WORDS, TEXT, layer=0)
    torch.testing.assert_close(lower.values["h"][-1], state[0][0][0].detach())
    assert "reset" in lower.values
    with pytest.raises(InputError, match="layer is 2, expected 0 to 1"):
        text_gates(model, WORDS, TEXT, layer=2)


def test_the_picture_is_written_and_wrong_choices_are_named(tmp_path: Path) -> None:
    model = language_model()
    one, two = (text_gates(model, WORDS, text) for text in (TEXT, "the cats"))
    plot_gates([one, two], tmp_path / "gates.png", units=5)
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")
    plot_gates(one, tmp_path / "gates.svg", units=[3, 1], names=["c"], title="three & one")
    drawn = (tmp_path / "gates.svg").read_text()
    assert drawn.startswith("<?xml")
    assert "three &amp; one" in drawn
    for options, message in (
        ({"units": [11]}, r"units are \[11\], expected some of 0 to 10"),
        ({"units": 0}, "units is 0, expected at least 1"),
        ({"names": ["reset", "c"]}, "nothing was recorded of reset; recorded: input, forget"),
    ):
        with pytest.raises(InputError, match=message):
            plot_gates(one, tmp_path / "no.png", **options)
    with pytest.raises(InputError, match="no texts"):
        plot_gates([], tmp_path / "no.png")
    with pytest.raises(InputError, match=r"no\.gif: the name of a picture ends in one of \.png, \.svg, \.pdf"):
        plot_gates(one, tmp_path / "no.gif")
    assert not list(tmp_path.glob("*no*"))


def test_the_units_that_change_most() -> None:
    values = torch.zeros(4, 5)
    values[:, 3] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    values[:, 1] = torch.tensor([0.0, 0.0, 0.5, 0.0])
    values[:, 2] = 9.0
    recorded = TextGates("", ("a", "b", "c", "d"), {"c": values})
    assert recorded.strongest_units(2, "c") == [1, 3]
    assert recorded.strongest_units(99, "c") == [0, 1, 2, 3, 4]
