"""Whatever a module hides, a file that is called verified is right: compared at sizes far beyond those of the export."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import ExportReport, export
from rnncore.runtime.errors import ExportError, InputError, RnncoreError, VerificationError
from tests.proof.modules import (
    FEATURES,
    Base,
    Branch,
    Counter,
    Dilated,
    Lag,
    MixesRows,
    Nested,
    Noise,
    Packed,
    Sliced,
    Table,
    WarmUp,
    Window,
)
from tests.strategies import randomize
from tests.tolerances import fixed

pytestmark = pytest.mark.slow
FAR = 4.0  # how many times beyond the number in a module its file is asked


@dataclass(frozen=True)
class Drawn:
    """A module, the number in it, and the steps of its example."""

    module: nn.Module
    number: int
    steps: int
    lengths: bool = False

    def __repr__(self) -> str:
        return f"{type(self.module).__name__} {vars(self.module)} of {self.steps} steps"


KINDS: dict[str, Callable[[int, bool], nn.Module]] = {
    "dilated": lambda n, _: Dilated(n),
    "lag": lambda n, _: Lag(n),
    "warm-up": lambda n, stored: WarmUp(n, stored),
    "window": lambda n, _: Window(n),
    "branch": lambda n, on_batch: Branch(1 + n % 7, 0) if on_batch else Branch(n),
    "nested": lambda n, _: Nested(n),
    "sliced": lambda n, last: Sliced(n, last),
    "table": lambda n, _: Table(n),
    "noise": lambda n, always: Noise("always" if always else "long", n),
    "counter": lambda _, buffer: Counter(buffer),
    "mixes rows": lambda *_: MixesRows(),
    "padding before": lambda _, masked: Packed(before="masked mean" if masked else "mean"),
    "padding after": lambda n, masked: Packed(after="masked mean" if masked else ("mean", "max", "last")[n % 3]),
}


@st.composite
def modules(draw: st.DrawFn) -> Drawn:
    kind = draw(st.sampled_from(sorted(KINDS)))
    number = draw(st.integers(3, 120))
    module = KINDS[kind](number, draw(st.booleans()))
    most = number if kind == "table" else 150
    return Drawn(module, number, draw(st.integers(2, most)), isinstance(module, Packed))


# Not shrunk: an export takes seconds.
@settings(max_examples=8, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(modules(), st.data())
def test_no_wrong_file_is_ever_called_verified(
    tmp_path_factory: pytest.TempPathFactory, drawn: Drawn, data: st.DataObject
) -> None:
    module = randomize(drawn.module.eval(), 3)
    example: tuple[Tensor, ...] = (torch.randn(2, drawn.steps, FEATURES),)
    if drawn.lengths:
        example += (torch.tensor([drawn.steps, 1]),)
    try:
        report = export(module, tmp_path_factory.mktemp("drawn") / "m.onnx", example)
    except RnncoreError as refusal:
        event(f"{type(drawn.module).__name__}: {type(refusal).__name__}")
        assert len(str(refusal).splitlines()) <= 12
        return
    event(f"{type(drawn.module).__name__}: {'streams' if report.causal else 'batch only'}")
    file = runtime.load(report.path)
    far = int(FAR * drawn.number)
    if drawn.lengths and file.signature.lengths is None:  # a padded row is not answered as it is alone
        for _ in range(6):
            lengths = data.draw(st.lists(st.integers(1, far), min_size=1, max_size=8))
            padded_is_right(file, module, lengths, behind=data.draw(st.integers(0, 3)))
        return
    for _ in range(6):
        batch, steps = data.draw(st.integers(1, 8)), data.draw(st.integers(1, far))
        whole_is_right(file, module, batch, steps)
        rows_are_right(file, module, data.draw(st.lists(st.integers(1, far), min_size=2, max_size=4)))
    if report.causal:
        stream_is_right(file, module, data.draw(st.lists(st.integers(1, far), min_size=2, max_size=6)))


def whole_is_right(file: runtime.Model, module: nn.Module, batch: int, steps: int) -> None:
    x = torch.randn(batch, steps, FEATURES)
    if not file.signature.axis("time").takes(steps):
        with pytest.raises(InputError, match=file.signature.axis("time").expected):
            file.run(x.numpy())
        return
    lengths = (torch.full((batch,), steps),) if isinstance(module, Packed) else ()
    with torch.no_grad():
        try:
            expected = module(x, *lengths)
        except RuntimeError:  # the file may do more than the module
            return
    np.testing.assert_allclose(file.run(x.numpy()), expected, rtol=0, atol=fixed("float32 long"))


def padded_is_right(file: runtime.Model, module: nn.Module, lengths: list[int], *, behind: int) -> None:
    """Rows of one array, ``behind`` steps longer than the longest."""
    x, ends = torch.randn(len(lengths), max(lengths) + behind, FEATURES), torch.tensor(lengths)
    if not file.signature.axis("time").takes(x.shape[1]):
        with pytest.raises(InputError, match=file.signature.axis("time").expected):
            file.run(x.numpy(), ends.numpy())
        return
    with torch.no_grad():
        expected = module(x, ends)
    np.testing.assert_allclose(file.run(x.numpy(), ends.numpy()), expected, rtol=0, atol=fixed("float32 long"))


def rows_are_right(file: runtime.Model, module: nn.Module, lengths: list[int]) -> None:
    rows = [torch.randn(1, n, FEATURES) for n in lengths]
    own = isinstance(module, Packed)
    if not all(file.signature.axis("time").takes(n) for n in lengths):
        with pytest.raises(InputError, match=file.signature.axis("time").expected):
            file.run([row[0].numpy() for row in rows])
        return
    with torch.no_grad():
        try:
            expected = [module(row, *((torch.tensor([row.shape[1]]),) if own else ()))[0] for row in rows]
        except RuntimeError:
            return
    for got, wanted in zip(file.run([row[0].numpy() for row in rows]), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=fixed("float32 long"))


def stream_is_right(file: runtime.Model, module: nn.Module, chunks: list[int]) -> None:
    x = torch.randn(1, sum(chunks), FEATURES)
    with torch.no_grad():
        try:
            expected = module(x)[0]
        except RuntimeError:
            return
    with file.stream() as stream:
        parts = [stream.push(chunk[0].numpy()) for chunk in x.split(chunks, 1)]
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=fixed("float32 long"))


def exported(module: nn.Module, folder: Path, steps: int = 6, **options: object) -> tuple[ExportReport, runtime.Model]:
    module = randomize(module.eval(), 3)
    report = export(module, folder / "m.onnx", torch.randn(2, steps, FEATURES), **options)  # type: ignore[arg-type]
    return report, runtime.load(report.path)


def test_a_lag_streams_with_its_context_as_a_state(tmp_path: Path) -> None:
    """Beyond its reach: short streams would not show that the context is missing."""
    module = Lag(24)
    report, file = exported(module, tmp_path)
    assert report.causal
    whole_is_right(file, module, 2, 200)
    stream_is_right(file, module, [10] * 20)


@pytest.mark.parametrize("stored", [False, True])
def test_what_counts_steps_streams_with_their_number_as_a_state(stored: bool, tmp_path: Path) -> None:
    """Beyond where it warms up: short streams would not show that the number is missing."""
    module = WarmUp(20, stored)
    report, file = exported(module, tmp_path)
    assert report.causal, report.signature.not_causal_because
    whole_is_right(file, module, 2, 200)
    stream_is_right(file, module, [10] * 20)


@pytest.mark.parametrize("module", [Branch(40), Nested(50), Sliced(50, True)], ids=lambda m: type(m).__name__)
def test_ways_that_the_trace_did_not_go_are_refused_by_the_file(module: Base, tmp_path: Path) -> None:
    report, file = exported(module, tmp_path, 6)
    most = {axis.name: axis.maximum for axis in report.signature.axes}["time"]
    assert most in (40, 49, 50) and not report.causal
    assert "forward asks at modules.py" in str(report) and f"it takes at most {most} steps" in str(report)
    whole_is_right(file, module, 2, most)
    with pytest.raises(InputError, match=f"at most {most}"):
        file.run(np.zeros((1, most + 1, FEATURES), np.float32))


def test_the_way_of_a_long_example_is_the_one_that_the_file_goes(tmp_path: Path) -> None:
    module = Branch(40)
    report, file = exported(module, tmp_path, 60)
    assert "forward asks at modules.py" in str(report) and "it takes at least 41 steps" in str(report)
    assert not report.causal  # a stream begins short
    for steps in (1, 40, 41, 60, 200):
        whole_is_right(file, module, 2, steps)


def test_ways_by_the_batch_are_refused_by_their_line(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"(?s)disagree.*forward asks at modules\.py:\d+, in \w+ whether"):
        exported(Branch(4, 0), tmp_path, 6)
    assert list(tmp_path.iterdir()) == []


def test_a_way_that_turns_beyond_what_is_checked_is_where_the_file_ends(tmp_path: Path) -> None:
    module = Branch(100_000)
    report, file = exported(module, tmp_path)
    assert re.search(r"asks at modules\.py:\d+, in before whether time <= 100000, .* at most 100000 steps", str(report))
    assert report.causal and file.signature.most_steps == 100_000
    whole_is_right(file, module, 2, 40)
    with pytest.raises(InputError, match="at most 100000"):
        file.run(np.zeros((1, 100_001, FEATURES), np.float32))


def test_a_batch_that_turns_beyond_what_is_checked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"asks at modules\.py:\d+, in before whether batch <= 100000, which turns beyond"
    ):
        exported(Branch(100_000, 0), tmp_path)


def test_tables_end_where_pytorch_ends(tmp_path: Path) -> None:
    """The example needs no more than the table has, and the file is right as far as PyTorch goes."""
    module = Table(40)
    _, file = exported(module, tmp_path, steps=40, streaming=False)
    whole_is_right(file, module, 2, 40)
    with pytest.raises(InputError):
        file.run(np.zeros((1, 41, FEATURES), np.float32))


def test_rows_that_are_mixed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"a row of a batch differs from the row alone: forward mixes rows"):
        exported(MixesRows(), tmp_path, lengths=False)


@pytest.mark.parametrize("module", [Packed(before="mean"), Packed(after="last")])
def test_padding_that_leaks_is_refused(module: Packed, tmp_path: Path) -> None:
    module = randomize(module.eval(), 3)
    with pytest.raises(VerificationError, match="mask them by the lengths"):
        export(module, tmp_path / "m.onnx", (torch.randn(2, 9, FEATURES), torch.tensor([9, 5])), lengths="lengths")


@pytest.mark.parametrize("module", [Packed(before="mean"), Packed(after="last")])
def test_padding_that_leaks_leaks_as_in_pytorch(module: Packed, tmp_path: Path) -> None:
    """Where nobody asks for rows that are answered as they are alone, lengths are an input like others."""
    module = randomize(module.eval(), 3)
    export(module, tmp_path / "m.onnx", (torch.randn(2, 9, FEATURES), torch.tensor([9, 5])))
    x = torch.randn(3, 20, FEATURES)
    for lengths in (torch.tensor([20, 7, 3]), torch.tensor([12, 7, 3])):
        with torch.no_grad():
            expected = module(x, lengths)
        got = runtime.load(tmp_path / "m.onnx").run(x.numpy(), lengths.numpy())
        np.testing.assert_allclose(got, expected, rtol=0, atol=fixed("float32"))


def test_padding_that_is_masked_is_right(tmp_path: Path) -> None:
    """Also where the longest row is shorter than the array."""
    module = randomize(Packed("masked mean", "masked mean").eval(), 3)
    x, lengths = torch.randn(3, 20, FEATURES), torch.tensor([12, 7, 3])
    file = runtime.load(export(module, tmp_path / "m.onnx", (x, lengths)).path)
    with torch.no_grad():
        expected = module(x, lengths)
    np.testing.assert_allclose(file.run(x.numpy(), lengths=lengths.numpy()), expected, rtol=0, atol=fixed("float32"))
    rows_are_right(file, module, [12, 7, 3])
