"""PackedSequence code exports: packing inside a user's forward becomes the lengths input of the file."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.nn.utils.rnn import pad_packed_sequence as unpack

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.packing import PaddedPacker, packing_by
from rnncore.runtime.errors import ExportError
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow


class Packed(nn.Module):
    """Every way of packing at once: both layouts, a packed sequence handed on and rebuilt, states given and returned."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(23, 5)
        self.lstm = nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(14, 11)
        self.rnn = nn.RNN(5, 3)
        self.head = nn.Linear(11, 3)

    def forward(self, ids: Tensor, n: Tensor) -> dict[str, Any]:
        x = self.embedding(ids)
        packed = pack_padded_sequence(x, n.cpu(), batch_first=True, enforce_sorted=False)
        y, (h, _) = self.lstm(packed)
        above, last = self.gru(y)
        top = PackedSequence(self.head(above.data), above.batch_sizes, above.sorted_indices, above.unsorted_indices)
        tags, lengths = unpack(top, padding_value=-1.5)
        again = pack_padded_sequence(self.embedding(ids), n.cpu().tolist(), batch_first=True, enforce_sorted=False)
        both, _ = unpack(self.lstm(again)[0], batch_first=True, total_length=ids.size(1))
        start = self.embedding(ids[:, :1])[:, 0, :3].unsqueeze(0)  # a given state, different for every row
        _, end = self.rnn(torch.nn.utils.rnn.pack_padded_sequence(x.transpose(0, 1), n, enforce_sorted=False), start)
        return {"tags": tags.transpose(0, 1), "both": both, "h": h, "last": last[-1], "end": end[0], "n": lengths}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Packed, runtime.Model]:
    module = randomize(Packed().eval(), 3)
    example = (torch.randint(23, (3, 9)), torch.tensor([4, 9, 2]))
    report = export(module, tmp_path_factory.mktemp("packed") / "model.onnx", example)
    return module, runtime.load(report.path)


def test_what_is_packed_with_is_the_lengths_input(packed: tuple[Packed, runtime.Model]) -> None:
    _, model = packed
    assert model.signature.lengths is not None and model.signature.lengths.name == "n"
    assert model.inputs == ("ids",) and "reads backward" in model.signature.not_causal_because


@given(st.lists(st.integers(1, 13), min_size=1, max_size=7))
def test_ragged_batches_equal_the_packed_code(packed: tuple[Packed, runtime.Model], sizes: list[int]) -> None:
    """The module runs torch's own packing, in any order of the lengths."""
    module, model = packed
    lengths = torch.tensor(sizes)
    ids = torch.randint(23, (len(sizes), max(sizes)), generator=torch.Generator().manual_seed(sum(sizes)))
    with torch.no_grad():
        expected = module(ids, lengths)
    got = model.run(ids.numpy(), lengths=lengths.numpy())
    valid = (torch.arange(max(sizes)) < lengths[:, None])[..., None]
    expected["tags"] = torch.where(valid, expected["tags"], 0.0)  # the runtime clears what lies past a length
    assert np.array_equal(got.pop("n_out"), expected.pop("n"))
    for name, want in expected.items():
        np.testing.assert_allclose(got[name], want, rtol=0, atol=fixed("float32"), err_msg=name)


class SortedTagger(nn.Module):
    """One direction, lengths in decreasing order only, as by torch's default, and int32: streams."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 7, num_layers=2), nn.Linear(7, 3)

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        y, (h, _) = self.lstm(pack_padded_sequence(x, count))
        return self.head(unpack(y)[0]), h[-1]


class LastOfBoth(nn.Module):
    """The commonest of all: floats, both ways, what the layer ends with."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return torch.cat(tuple(self.lstm(packed)[1][0]), -1)


def test_torch_runs_full_packed_rows_of_any_width_but_features_are_not_free() -> None:
    module, example = LastOfBoth(), (torch.randn(3, 7, 4), torch.tensor([7, 5, 2]))
    known = find_axes(module, Example.of(module, example, None, "auto"), None)
    assert [own.axes for own in known.inputs] == [("batch", "time", None), ("batch",)]


def test_sorted_time_first_code_streams(tmp_path: Path) -> None:
    module = randomize(SortedTagger().eval(), 4)
    example = (torch.randn(6, 2, 5), torch.tensor([6, 2], dtype=torch.int32))
    axes = {"x": ("time", "batch", None)}
    report = export(module, tmp_path / "model.onnx", example, axes=axes, streaming=True)
    model = runtime.load(report.path)
    assert model.signature.lengths is not None and model.signature.lengths.name == "count"
    x = torch.randn(9, 1, 5)
    with torch.no_grad():
        y, h = module(x, torch.tensor([9]))
    streams = model.stream(), model.stream()
    other = torch.randn(9, 5).numpy()
    parts = [
        model.push_many(streams, [x[a:b, 0].numpy(), other[c:d]])[0]
        for a, b, c, d in ((0, 1, 0, 4), (1, 6, 4, 5), (6, 9, 5, 9))
    ]
    np.testing.assert_allclose(
        np.concatenate([part["output_0"] for part in parts]), y[:, 0], rtol=0, atol=fixed("float32")
    )
    np.testing.assert_allclose(parts[-1]["output_1"], h[0], rtol=0, atol=fixed("float32"))


class Encoder(nn.Module):
    """A GRU that packs as its argument says."""

    def __init__(self, pack: Callable[[Tensor, Any], Any]) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 3, batch_first=True)
        self.pack = pack

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        y, _ = self.gru(self.pack(x, n))
        return unpack(y, batch_first=True)[0]


X, N = torch.randn(2, 4, 5), torch.tensor([4, 3])
REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "a list of lengths for so many rows": (
        lambda: Encoder(lambda x, n: pack_padded_sequence(x, [x.shape[1]] * 2, batch_first=True)),
        (X, N),
        "input 'x' of shape [2, time, 5] has 0 batch axes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_packing_that_cannot_be_exported(case: str, tmp_path: Path) -> None:
    make, example, message = REFUSED[case]
    with pytest.raises(ExportError, match=re.escape(message)):
        export(make().eval(), tmp_path / "model.onnx", example)
    assert list(tmp_path.iterdir()) == []


def test_torch_packs_as_ever_outside_and_in_other_threads() -> None:
    def pack() -> tuple[int, int]:
        result = pack_padded_sequence(X, N, batch_first=True)
        return result.data.dim(), len(unpack(result)[0])

    elsewhere: list[Any] = []
    with packing_by(PaddedPacker()):
        with packing_by(PaddedPacker()):
            assert pack_padded_sequence(X, N, batch_first=True).data.shape == X.shape
        assert pack()[0] == 3
        thread = threading.Thread(target=lambda: elsewhere.append(pack()))
        thread.start()
        thread.join()
    assert elsewhere == [(2, 4)] and pack() == (2, 4)
