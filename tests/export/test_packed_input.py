"""Modules that are called with a PackedSequence: the file takes rows and lengths, and answers as the module does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from rnncore.export import export
from rnncore.export.tracing.packed_input import without_packing
from rnncore.runtime import load
from rnncore.runtime.errors import InputError
from tests.tolerances import fixed

NEAR = {"rtol": 0, "atol": fixed("float32")}


class Tagger(nn.Module):
    """A head on the data of a packed answer, beside the last states and another argument."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, bidirectional=True), nn.Linear(10, 3)

    def forward(self, words: PackedSequence, speaker: Tensor) -> dict[str, Any]:
        answer, (h, _) = self.lstm(words)
        return {"tags": answer._replace(data=self.head(answer.data)), "voice": torch.cat([h[0], h[1]], -1) + speaker}


def rows_of(lengths: list[int], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 4, generator=generator) for n in lengths]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tagger, Path]:
    path = tmp_path_factory.mktemp("packed") / "tagger.onnx"
    torch.manual_seed(0)
    module = Tagger().eval()
    export(module, path, (pack_sequence(rows_of([6, 3, 4], 0), enforce_sorted=False), torch.randn(3, 10)))
    return module, path


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_answers_are_those_of_the_packed_rows(exported: tuple[Tagger, Path], lengths: list[int], seed: int) -> None:
    module, path = exported
    rows, speaker = rows_of(lengths, seed), torch.randn(len(lengths), 10)
    with torch.no_grad():
        wanted = module(pack_sequence(rows, enforce_sorted=False), speaker)
    tags = pad_packed_sequence(wanted["tags"], batch_first=True)[0].numpy()
    model = load(path)
    assert model.inputs == ("words", "speaker")
    answers = model.run([row.numpy() for row in rows], speaker.numpy())
    np.testing.assert_allclose(answers["voice"], wanted["voice"], **NEAR)
    for own, padded, length in zip(answers["tags"], tags, lengths, strict=True):
        np.testing.assert_allclose(own, padded[:length], **NEAR)
    padded_rows = nn.utils.rnn.pad_sequence(rows, batch_first=True).numpy()
    together = model.run(padded_rows, speaker.numpy(), lengths=lengths)
    np.testing.assert_allclose(together["tags"], tags, **NEAR)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_layer_called_with_packed_rows_streams(by_name: bool, tmp_path: Path) -> None:
    layer, rows = nn.GRU(4, 5).eval(), rows_of([7, 2], 1)
    packed = pack_sequence(rows)
    report = export(layer, tmp_path / "m.onnx", {"input": packed} if by_name else packed)
    assert report.causal
    with torch.no_grad():
        wanted = layer(rows[0][:, None])[0][:, 0].numpy()
    with load(report.path).stream() as stream:
        parts = [stream.push(part)["output_0"] for part in np.split(rows[0].numpy(), [2, 3])]
    np.testing.assert_allclose(np.concatenate(parts), wanted, **NEAR)


class Two(nn.Module):
    def forward(self, a: PackedSequence, b: PackedSequence) -> Tensor:
        return a.data + b.data


class Nested(nn.Module):
    def forward(self, pair: tuple[PackedSequence, Tensor]) -> Tensor:
        return pair[0].data * pair[1].sum()


class Both(nn.Module):
    def forward(self, a: PackedSequence, lengths: Tensor) -> Tensor:
        return a.data * lengths.sum()


def test_what_a_file_cannot_take_is_refused(tmp_path: Path) -> None:
    packed = pack_sequence(rows_of([3, 2], 0))
    with pytest.raises(InputError, match=r"takes packed sequences as a and b; a file has one time axis"):
        export(Two(), tmp_path / "m.onnx", (packed, packed))
    with pytest.raises(InputError, match=r"a packed sequence stands within 'pair' of Nested\.forward"):
        export(Nested(), tmp_path / "m.onnx", ((packed, torch.zeros(2)),))
    with pytest.raises(InputError, match="as a and an argument named lengths"):
        export(Both(), tmp_path / "m.onnx", (packed, torch.tensor([3, 2])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is to go, and says so
        quantized = nn.Sequential(torch.ao.nn.quantized.dynamic.Linear(3, 4))
    with pytest.raises(InputError, match=r"'0' is quantized by torch \(Linear\).*quantize='int8'"):
        export(quantized, tmp_path / "m.onnx", torch.randn(2, 5, 3))


def test_other_examples_stay_as_they_are() -> None:
    layer = nn.GRU(4, 5)
    for example in (
        torch.zeros(3, 2, 4),
        (torch.zeros(3, 2, 4), None),
        {"input": torch.zeros(3, 2, 4)},
        [torch.zeros(2)],
    ):
        assert without_packing(layer, example) == (layer, example)
