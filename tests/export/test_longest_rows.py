"""Modules that count the steps of padded rows themselves and pack with that: what PyTorch unpacks ends with the longest row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnncore.export import export
from rnncore.runtime import InputError, Model, load
from rnncore.runtime.errors import VerificationError
from tests.tolerances import fixed

BOUND = {"rtol": 0, "atol": fixed("float32 two hosts")}
IDS = 12
FULL = torch.tensor([[4, 7, 2, 9, 5], [3, 6, 8, 5, 4]])
PADDED = torch.tensor([[4, 7, 2, 9, 5], [3, 6, 8, 0, 0], [5, 2, 0, 0, 0]])

COUNTS = {
    "!= 0": lambda ids, pad: (ids != pad).sum(1),
    "ne": lambda ids, pad: ids.ne(pad).long().sum(dim=-1),
    "clamp": lambda ids, pad: (ids != pad).sum(1).clamp(min=1),
    "== 0": lambda ids, pad: ids.size(1) - (ids == pad).sum(1),
    "cpu": lambda ids, pad: (ids != pad).int().sum(1).cpu(),
}
USES = {
    "steps": lambda y, n, ids: y,
    "mean": lambda y, n, ids: y.sum(1) / n[:, None],
    "max": lambda y, n, ids: y.max(1)[0],
    "mean of all": lambda y, n, ids: y.mean(1),
    "with lengths": lambda y, n, ids: (y, n),
    "attention": lambda y, n, ids: torch.softmax(y @ y.transpose(1, 2), -1) @ y,
    "mask": lambda y, n, ids: y.masked_fill((ids[:, : y.size(1)] == 0)[:, :, None], -1.0),
    "another layer": lambda y, n, ids: y.cumsum(1).flip(1),
}


class Counting(nn.Module):
    """Ids [batch, time], or [time, batch], of which ``pad`` says that there is no step."""

    def __init__(self, kind: type[nn.RNNBase], count: str, use: str, *, pad: int = 0, both: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.pad, self.count, self.use = pad, count, use
        self.table = nn.Embedding(IDS, 3)
        self.layer = kind(3, 4, batch_first=True, bidirectional=both)
        self.head = nn.Linear(8 if both else 4, 2)

    def forward(self, ids: Tensor) -> Any:
        """What is made of the unpacked steps."""
        n = COUNTS[self.count](ids, self.pad)
        packed = pack_padded_sequence(self.table(ids), n.cpu(), batch_first=True, enforce_sorted=False)
        y, lengths = pad_packed_sequence(self.layer(packed)[0], batch_first=True)
        return USES[self.use](self.head(y), lengths, ids)


def exported(module: nn.Module, folder: Path, example: Tensor, **options: Any) -> Model:
    """The module's file, loaded."""
    export(module.eval(), folder / "m.onnx", example, **options)
    return load(folder / "m.onnx")


def answers(module: nn.Module, model: Model, ids: Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """PyTorch's, and the file's."""
    with torch.no_grad():
        wanted, got = module(ids), model.run(ids.numpy())
    wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
    return [value.numpy() for value in wanted], list(got.values()) if isinstance(got, dict) else [got]


def check(module: nn.Module, model: Model, ids: Tensor) -> None:
    """Both have the same shapes and numbers."""
    for wanted, got in zip(*answers(module, model, ids), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, **BOUND)


@settings(max_examples=12)
@given(
    kind=st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]),
    count=st.sampled_from(sorted(COUNTS)),
    use=st.sampled_from(sorted(USES)),
    both=st.booleans(),
    padded=st.booleans(),
    form=st.sampled_from(["loop", "scan"]),
    rows=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    behind=st.integers(0, 3),
)
def test_batches_whose_longest_row_is_shorter(
    kind: type[nn.RNNBase],
    count: str,
    use: str,
    both: bool,
    padded: bool,
    form: str,
    rows: list[int],
    behind: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    module = Counting(kind, count, use, both=both)
    model = exported(module, tmp_path_factory.mktemp("m"), PADDED if padded else FULL, form=form)
    assert model.signature.rows_together and not model.signature.causal and model.signature.format_version == 3
    generator = torch.Generator().manual_seed(len(rows))
    ids = torch.randint(1, IDS, (len(rows), max(rows) + behind), generator=generator)
    for row, length in zip(ids, rows, strict=True):
        row[length:] = 0
    check(module, model, ids)
    ids[0, 0], ids[-1, -1] = 3, 4  # padding among the steps: PyTorch counts it all the same
    check(module, model, ids)


@pytest.mark.parametrize("pad", [0, 1, 9])
@pytest.mark.parametrize("example", [FULL, PADDED], ids=["full", "padded"])
def test_any_id_says_that_a_row_has_ended(pad: int, example: Tensor, tmp_path: Path) -> None:
    """Of an example without padding only a usual one, or that of the table, is known."""
    module = Counting(nn.GRU, "!= 0", "max", pad=pad)
    module.table.padding_idx = pad
    model = exported(module, tmp_path, torch.where(example == 0, pad, torch.where(example == pad, 10, example)))
    check(module, model, torch.tensor([[2, 3, pad, pad, pad], [4, 5, 6, pad, pad]]))
    check(module, model, torch.tensor([[2, pad, pad]]))


class ZeroSteps(nn.Module):
    """Features [batch, time, 3] that are zero behind the end of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """The largest of each row."""
        lengths = (x.abs().sum(-1) > 0).sum(1)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0].max(1)[0]


class Masked(nn.Module):
    """A mask says where rows end."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(IDS, 3), nn.LSTM(3, 4, batch_first=True)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The largest of each row."""
        packed = pack_padded_sequence(self.table(ids), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0].max(1)[0]


def test_rows_of_features_that_are_zero_and_masks(tmp_path: Path) -> None:
    module = ZeroSteps()
    model = exported(module, tmp_path, torch.randn(2, 5, 3))
    x = torch.randn(3, 8, 3)
    x[0, 4:] = x[1, 2:] = x[2, 6:] = 0
    check(module, model, x)
    masked = Masked().eval()
    export(masked, tmp_path / "n.onnx", (FULL, torch.ones_like(FULL)))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    with torch.no_grad():
        wanted = masked(FULL, mask)
    np.testing.assert_allclose(load(tmp_path / "n.onnx").run(FULL.numpy(), mask.numpy()), wanted.numpy(), **BOUND)


class Valid(Masked):
    """The same, where the mask has no name that says so."""

    def forward(self, ids: Tensor, valid: Tensor) -> Tensor:
        """The largest of each row."""
        return super().forward(ids, valid)


def test_truth_values_that_say_where_rows_end(tmp_path: Path) -> None:
    module = Valid().eval()
    export(module, tmp_path / "m.onnx", (FULL, torch.tensor([[True] * 5, [True] * 3 + [False] * 2])))
    ids, valid = torch.cat([FULL, FULL], 1), torch.arange(10).expand(2, 10) < torch.tensor([[6], [3]])
    with torch.no_grad():
        wanted = module(ids, valid)
    np.testing.assert_allclose(load(tmp_path / "m.onnx").run(ids.numpy(), valid.numpy()), wanted.numpy(), **BOUND)


class Before(Counting):
    """What is packed looks at the steps behind it, which are no zeros: a table gives them a vector of their own."""

    def __init__(self, layer: bool) -> None:
        super().__init__(nn.GRU, "!= 0", "steps")
        self.before = nn.LSTM(3, 3, batch_first=True) if layer else nn.Conv1d(3, 3, 3, padding=1)

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, longest, 2]."""
        x = self.table(ids)
        if isinstance(self.before, nn.LSTM):
            x = self.before(x)[0]
        else:
            x = self.before(x.transpose(1, 2)).transpose(1, 2)
        packed = pack_padded_sequence(x, (ids != 0).sum(1).cpu(), batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0])


@pytest.mark.parametrize("layer", [False, True])
def test_what_stands_before_the_packing_sees_all_steps(layer: bool, tmp_path: Path) -> None:
    module = Before(layer)
    check(module, exported(module, tmp_path, PADDED), torch.tensor([[2, 3, 0, 0, 0], [4, 5, 6, 0, 0]]))


class Pair(Counting):
    """Two sentences, each counted and packed by itself."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[batch, longest of a, 2]."""
        a, b = super().forward(a), super().forward(b)
        return torch.softmax(a @ b.transpose(1, 2), -1) @ b


@pytest.mark.parametrize("example", [FULL, PADDED], ids=["full", "padded"])
def test_two_sequences_end_each_with_its_own_longest_row(example: Tensor, tmp_path: Path) -> None:
    module = Pair(nn.LSTM, "ne", "steps", both=True).eval()
    export(module, tmp_path / "m.onnx", (example, example[:, :4]))
    a, b = torch.tensor([[2, 3, 0, 0, 0], [4, 5, 6, 0, 0]]), torch.tensor([[4, 1, 1, 8, 0, 0], [5, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        wanted = module(a, b)
    np.testing.assert_allclose(load(tmp_path / "m.onnx").run(a.numpy(), b.numpy()), wanted.numpy(), **BOUND)


class PutBack(Counting):
    """Behind the longest row as many zeros as there were steps."""

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, time, 2]."""
        y = super().forward(ids)
        return nn.functional.pad(y, (0, 0, 0, ids.shape[1] - y.shape[1]))


def test_what_is_put_back_behind_the_longest_row_is_there(tmp_path: Path) -> None:
    """Without a bias the head gives zeros there, too: so the file that is not cut is right."""
    module = PutBack(nn.GRU, "!= 0", "steps")
    module.head = nn.Linear(4, 2, bias=False)
    model = exported(module, tmp_path, PADDED)
    assert not model.signature.rows_together
    check(module, model, torch.tensor([[2, 3, 0, 0, 0], [4, 5, 6, 0, 0]]))


def test_a_call_is_not_run_in_parts(tmp_path: Path) -> None:
    """Rows of one part would end with the longest of that part."""
    module = Counting(nn.LSTM, "!= 0", "max")
    exported(module, tmp_path, FULL)
    model = load(tmp_path / "m.onnx", threads=2)
    ids = torch.randint(1, IDS, (256, 40), generator=torch.Generator().manual_seed(0))
    ids[:, 30:] = ids[:200, 9:] = 0
    for _ in range(3):
        check(module, model, ids)
    with pytest.raises(InputError, match="longest row of a batch tells this model where all rows end"):
        load(tmp_path / "m.onnx", max_batch_steps=64)


def test_verification_sees_what_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnncore.export.stages.cut_to_longest", lambda graph, longest: None)
    with pytest.raises(VerificationError, match="rows padded behind"):
        export(Counting(nn.LSTM, "!= 0", "mean of all").eval(), tmp_path / "m.onnx", FULL)
    assert not (tmp_path / "m.onnx").exists()


def test_lengths_as_an_argument_stream(tmp_path: Path) -> None:
    """As the reason says why a module that counts itself does not."""
    module = Counting(nn.LSTM, "!= 0", "steps")
    model = exported(module, tmp_path, FULL)
    assert "which the module finds in 'ids'; it streams if it takes" in model.signature.not_causal_because

    class Given(Counting):
        def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(self.table(ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
            return self.head(pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0])

    given_ = Given(nn.LSTM, "!= 0", "steps").eval()
    export(given_, tmp_path / "g.onnx", (FULL, torch.tensor([5, 5])))
    assert load(tmp_path / "g.onnx").signature.causal


class PaddingShows(Counting):
    """The padding of shorter rows, up to the longest, takes part in a maximum: what a row is answered is not its own."""

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """[batch, 2]."""
        packed = pack_padded_sequence(self.table(ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0]).max(1)[0]


@pytest.mark.parametrize("options", [{}, {"lengths": False}], ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_lengths_of_rows_that_are_not_answered_as_alone(
    options: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    """They are an input like others then, and the file answers as PyTorch does."""
    module = PaddingShows(nn.GRU, "!= 0", "steps", both=True).eval()
    report = export(module, tmp_path / "m.onnx", (FULL, torch.tensor([5, 3], dtype=dtype)), **options)
    assert ("answered as PyTorch answers it, not each row as it is alone" in str(report)) is (not options)
    model = load(tmp_path / "m.onnx")
    assert model.inputs == ("ids", "lengths") and model.signature.rows_together
    ids = torch.cat([FULL, FULL], 1)
    for ends in ([10, 2], [7, 4], [1, 1]):
        lengths = torch.tensor(ends, dtype=dtype)
        with torch.no_grad():
            wanted = module(ids, lengths)
        np.testing.assert_allclose(model.run(ids.numpy(), lengths.numpy()), wanted.numpy(), **BOUND)
    with pytest.raises(VerificationError, match="not what each row answers alone"):
        export(module, tmp_path / "n.onnx", (FULL, torch.tensor([5, 3])), lengths="lengths")
