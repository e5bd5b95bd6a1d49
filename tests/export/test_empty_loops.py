"""Loops that may have no turn: onnxruntime's ``Scan`` over nothing divides by zero and takes the process with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.runtime import load
from rnncore.runtime.errors import InputError
from tests.tolerances import fixed

BOUND = {"rtol": 0, "atol": fixed("float32 two hosts")}


class Words(nn.Module):
    """Adds what a loop makes of words, of which there may be none, to every step of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.frames, self.decay = nn.GRU(4, 6, batch_first=True), nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        y, _ = self.frames(x)
        h = torch.zeros(len(words), 6)
        for t in range(words.shape[1]):
            h = h * self.decay + words[:, t].repeat(1, 2)
        return y + h[:, None]


class BestPath(nn.Module):
    """Viterbi by hand: the loop back begins one turn later than it ends, so that two steps leave it none."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = nn.Parameter(torch.randn(5, 5))

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        best, back = scores[:, 0], []
        for t in range(1, scores.shape[1]):
            best, place = (best.unsqueeze(2) + self.moves).max(1)
            best = best + scores[:, t]
            back.append(place)
        last = best.argmax(1)
        path = [last]
        for place in reversed(back):
            last = place.gather(1, last.unsqueeze(1)).squeeze(1)
            path.insert(0, last)
        return torch.stack(path, 1), best.max(1).values


class Chars(nn.Module):
    """A layer over the characters of each word."""

    def __init__(self) -> None:
        super().__init__()
        self.chars, self.words = nn.LSTM(4, 6, batch_first=True), nn.GRU(6, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows, words, chars, size = x.shape
        _, (h, _) = self.chars(x.reshape(rows * words, chars, size))
        return self.words(h[-1].view(rows, words, 6))[0]


def scans_over(graph: onnx.GraphProto) -> Iterator[str]:
    """The sizes of the axes that each ``Scan`` runs over, by name, as far as they are known."""
    known = {v.name: v.type.tensor_type.shape.dim for v in (*graph.input, *graph.value_info)}
    for node in graph.node:
        yield from (name for a in node.attribute if a.type == onnx.AttributeProto.GRAPH for name in scans_over(a.g))
        if node.op_type == "Scan":
            axes = next((list(a.ints) for a in node.attribute if a.name == "scan_input_axes"), [0] * len(node.input))
            scanned = node.input[len(node.input) - len(axes) :]
            yield from (known[n][k].dim_param for n, k in zip(scanned, axes, strict=True) if n in known)


FORMS: list[dict[str, Any]] = [
    {},
    {"form": "scan"},
    {"form": "auto"},
    {"branches": False},
    {"form": "scan", "branches": False},
]


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_a_sequence_may_be_empty_beside_another(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Words().eval()
    export(module, tmp_path / "m.onnx", (torch.randn(2, 7, 4), torch.randn(2, 5, 3)), **options)
    assert not [name for name in scans_over(onnx.load(tmp_path / "m.onnx").graph) if "words" in name]
    model = load(tmp_path / "m.onnx")
    for words in (0, 1, 4):
        x, beside = torch.randn(3, 2, 4), torch.randn(3, words, 3)
        with torch.no_grad():
            np.testing.assert_allclose(model.run(x.numpy(), beside.numpy()), module(x, beside).numpy(), **BOUND)


@pytest.mark.parametrize("options", FORMS[:2], ids=str)
def test_a_loop_that_ends_earlier_than_the_steps(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = BestPath().eval()
    export(module, tmp_path / "m.onnx", torch.randn(2, 7, 5), **options)
    model = load(tmp_path / "m.onnx")
    for steps in (2, 3, 9):
        scores = torch.randn(3, steps, 5)
        path, best = module(scores)
        try:
            found = model.run(scores.numpy())
        except InputError:
            assert steps == 2, "the file may want more steps"
            continue
        np.testing.assert_array_equal(found["output_0"], path.numpy())
        np.testing.assert_allclose(found["output_1"], best.detach().numpy(), **BOUND)


def test_a_word_without_characters_is_refused_in_words(tmp_path: Path) -> None:
    export(Chars().eval(), tmp_path / "m.onnx", torch.randn(2, 7, 5, 4))
    with pytest.raises(InputError, match=r"^input 'x' is empty, its shape is \[2, 3, 0, 4\], and the model does not"):
        load(tmp_path / "m.onnx").run(np.zeros((2, 3, 0, 4), np.float32))
