"""Axes are found by running the module at other sizes; files of these kinds answer as PyTorch at any size they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from rnncore.export.tracing.axes import find_axes
from rnncore.export.tracing.example import Example
from rnncore.runtime.errors import ExportError, InputError, NotStreamableError
from tests.export import axes_modules as kinds
from tests.tolerances import fixed

X = torch.randn(2, 9, 4)

# kind: (module, example, axes of each input, shape of each output, (minimum, multiple) of time)
FOUND: dict[str, tuple[Callable[[], nn.Module], Any, list[Any], list[str], tuple[int, int] | None]] = {
    "strided": (kinds.strided, X, [("batch", "time", None)], ["batch (time+1)//2 5"], (1, 1)),
    "every second": (kinds.every_nth, X, [("batch", "time", None)], ["batch (time+1)//2 5"], (1, 1)),
    "pyramid": (kinds.pyramid, X, [("batch", "time", None)], ["batch time//2 3"], (2, 1)),
    "letters": (
        kinds.letters,
        torch.randn(2, 5, 7, 3),
        [("batch", "time", "x_2", None)],
        ["batch time 10"],
        (1, 1),
    ),
    "bands": (kinds.bands, torch.randn(2, 5, 7, 3), [("batch", "time", None, None)], ["batch time 7 4"], (1, 1)),
    "channels first": (kinds.channels_first, X.mT, [("batch", None, "time")], ["batch time 5"], (1, 1)),
    "convolutions": (kinds.convolutions, X.mT, [("batch", None, "time")], ["batch 5 time"], (1, 1)),
    "series": (kinds.series, torch.randn(2, 9), [("batch", "time")], ["batch time 5"], (1, 1)),
    "audio": (kinds.audio, torch.randn(2, 700), [("batch", "time")], ["batch (time-241)//10 10"], (251, 1)),
    "flattened": (kinds.flattened, X, [("batch", "time", None)], ["batch_*_time 7"], (1, 1)),
    "flattened, time first": (
        lambda: kinds.flattened(batch_first=False),
        X.transpose(0, 1),
        [("time", "batch", None)],
        ["time_*_batch 7"],
        (1, 1),
    ),
    "packed and flattened": (
        kinds.packed_and_flat,
        (X, torch.tensor([9, 9])),
        [("batch", "time", None), ("batch",)],
        ["batch time 10", "batch_*_time 10"],
        (1, 1),
    ),
    "an image of one row": (
        kinds.image_row,
        torch.randn(2, 1, 8, 20),
        [("batch", None, None, "time")],
        ["time//2 batch 10"],
        (2, 1),
    ),
    "triples": (kinds.triples, X, [("batch", "time", None)], ["batch time//3 5"], (3, 3)),
    "put together again": (kinds.put_together, torch.randn(2, 40), [("batch", "time")], ["batch time"], (4, 4)),
    "counted out": (kinds.CountedOut, torch.randn(12, 2, 4), [("time", "batch", None)], ["batch 5"], (12, 1)),
    "points": (kinds.points, torch.randn(9, 3, 2), [("time", "batch", None)], ["batch 5"], (1, 1)),
    "free by accident": (kinds.regrouped, X, [("batch", "time", None)], ["batch time 5"], (1, 1)),
    "upsampled": (kinds.upsampled, X, [("batch", "time", None)], ["batch 2 2*time"], (1, 1)),
    "fixed time": (kinds.fixed_time, X, [("batch", None, None)], ["batch 2"], None),
    "attending": (
        kinds.attending,
        (torch.randn(2, 7, 4), torch.randn(2, 6, 3)),
        [("batch", "source", None), ("batch", "time", None)],
        ["batch time 5"],
        (1, 1),
    ),
    "attending, sizes alike": (
        kinds.attending,
        (torch.randn(2, 6, 4), torch.randn(2, 6, 3)),
        [("batch", "source", None), ("batch", "time", None)],
        ["batch time 5"],
        (1, 1),
    ),
    "frames and samples": (
        kinds.vocoder,
        (torch.randn(2, 48), torch.randn(2, 5, 10), torch.randn(2, 7, 4), torch.full((2,), 7)),
        [("batch", "6*time-12"), ("batch", None, "time"), ("batch", "memory", None), ("batch",)],
        ["batch 6*time-12 5"],
        (3, 1),
    ),
    "words and frames": (
        kinds.WordsAndFrames,
        (torch.randint(13, (2, 9)), torch.randn(2, 18, 3)),
        [("batch", "time"), ("batch", "2*time", None)],
        ["batch time 5"],
        (1, 1),
    ),
    "with state": (
        kinds.with_state,
        (torch.randn(2, 6, 4), torch.zeros(2, 2, 5), torch.zeros(2, 2, 5)),
        [("batch", "time", None), (None, "batch", None), (None, "batch", None)],
        ["batch time 5", "2 batch 5", "2 batch 5"],
        (1, 1),
    ),
    "decaying": (kinds.decaying, (X, X.abs(), X.abs()), [("batch", "time", None)] * 3, ["batch 5"], (1, 1)),
    "decaying, nine steps": (lambda: kinds.decaying(9), (X, X, X), [("batch", None, None)] * 3, ["batch 5"], None),
    "washed out": (kinds.washed_out, X, [("batch", "time", None)], ["batch time-4 5"], (5, 1)),
    "viewed": (kinds.viewed, X, [("batch", None, None)], ["batch 9 5"], None),
}


def found(module: nn.Module, example: Any, axes: Any = None) -> Example:
    return find_axes(module, Example.of(module, example, axes, "auto"), axes)


@pytest.mark.parametrize("one_row", [False, True], ids=["two rows", "one row"])
@pytest.mark.parametrize("kind", FOUND)
def test_axes_are_found(kind: str, one_row: bool) -> None:
    make, example, axes, outputs, limits = FOUND[kind]
    if one_row:
        tensors = example if isinstance(example, tuple) else (example,)
        example = tuple(t.narrow(own.index("batch"), 0, 1) for t, own in zip(tensors, axes, strict=True))
    known = found(make(), example)
    assert [own.axes for own in known.inputs] == axes
    assert known.output_shapes is not None
    assert [" ".join(str(d).replace(" ", "_") for d in shape) for shape in known.output_shapes] == outputs
    time = known.extents.get("time")
    assert (None if time is None else (time.minimum, time.multiple)) == limits


@settings(deadline=None, max_examples=15)
@given(kernel=st.integers(1, 6), stride=st.integers(1, 5), padding=st.integers(0, 3), time=st.integers(1, 40))
def test_the_function_of_any_stride_is_exact(kernel: int, stride: int, padding: int, time: int) -> None:
    module = kinds.strided(kernel, stride, padding)
    known = found(module, torch.randn(2, 23, 4))
    extent = known.extents["time"]
    assert known.output_shapes is not None
    size = known.output_shapes[0][1]
    if time < extent.minimum:
        with pytest.raises(RuntimeError):
            module(torch.randn(1, time, 4))
    else:
        steps = module(torch.randn(1, time, 4)).shape[1]
        assert steps == (time if size == "time" else size.at(time))  # type: ignore[union-attr]


def test_rows_that_twice_as_many_steps_could_be_are_tied_to_their_states() -> None:
    known = found(kinds.Policy(), (torch.randn(2, 4), torch.zeros(1, 2, 5)))
    assert [own.axes for own in known.inputs] == [("batch", None), (None, "batch", None)]
    known = found(kinds.Agent(), (torch.randn(2, 4), torch.zeros(1, 2, 5), torch.zeros(2)))
    assert [own.axes for own in known.inputs] == [("batch", None), (None, "batch", None), ("batch",)]


def test_axes_overrule() -> None:
    known = found(kinds.letters(), torch.randn(2, 5, 7, 3), {"x": ("batch", "time", "letters", None)})
    assert known.inputs[0].axes == ("batch", "time", "letters", None)
    known = found(kinds.letters(), torch.randn(2, 5, 7, 3), {"x": ("batch", "time", None, None)})
    assert known.inputs[0].axes == ("batch", "time", None, None)
    assert set(known.extents) == {"batch", "time"}


class Squeezed(kinds.Net):
    def __init__(self) -> None:
        super().__init__(lambda s, x: s.gru(x)[0][:, -1, :1].squeeze(), gru=nn.GRU(4, 5, batch_first=True))


class OneSequence(kinds.Net):
    """[time, 4], without a batch axis."""

    def __init__(self) -> None:
        super().__init__(lambda s, x: s.gru(x)[0], gru=nn.GRU(4, 5))


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (
            Squeezed(),
            X,
            r'for a batch of 1: squeeze\(\) drops that axis.*\n  File ".*test_axes.py", line \d+, in <lambda>',
        ),
        (
            OneSequence(),
            X[0],
            r"no other size along any axis that could be the batch.*axes=\{'x': \('batch', 'time'\)\}",
        ),
    ],
    ids=["squeezed", "one sequence"],
)
def test_a_module_without_a_batch_is_refused(module: nn.Module, example: Tensor, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        found(module, example)


def test_an_example_beside_the_stride_is_refused_with_a_size_that_works() -> None:
    with pytest.raises(ExportError, match=r"grow by 4 at a time while axis 1 of 'x' grows: .* such as 40; it has 42"):
        found(kinds.put_together(), torch.randn(2, 42))


def test_what_a_run_moves_is_put_back() -> None:
    class Counting(kinds.Net):
        def __init__(self) -> None:
            super().__init__(lambda s, x: s.gru(x)[0], gru=nn.GRU(4, 5, batch_first=True))
            self.register_buffer("seen", torch.zeros(1))
            self.calls = 0

        def forward(self, x: Tensor) -> Any:
            self.seen += 1
            self.calls += 1
            return super().forward(x)

    module = Counting()
    found(module, X)
    assert module.seen.item() == module.calls == 1  # the one run of ``Example.of``


FILES: dict[str, tuple[Callable[[], nn.Module], Any, Sequence[tuple[int, int]]]] = {
    "strided": (kinds.strided, X, [(1, 1), (1, 8), (3, 31)]),
    "audio": (kinds.audio, torch.randn(2, 700), [(1, 251), (3, 800)]),
    "flattened, time first": (lambda: kinds.flattened(batch_first=False), X.transpose(0, 1), [(1, 5), (3, 12)]),
    "triples": (kinds.triples, X, [(1, 3), (3, 12)]),
    # The trace of our own choice goes another way than so long an example; windows are whole at 320 and 640.
    "whole windows": (kinds.enhancer, torch.randn(2, 321), [(1, 9), (2, 320), (1, 640), (3, 97), (1, 643)]),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, runtime.Model]:
    folder = tmp_path_factory.mktemp("axes")
    for name, (make, example, _) in FILES.items():
        export(make(), folder / f"{name}.onnx", example)
        values = onnx.load(folder / f"{name}.onnx").graph.value_info
        # Of values whose sizes have one name onnxruntime lets one be where the other was.
        assert "None" not in {size.dim_param for value in values for size in value.type.tensor_type.shape.dim}
    return {name: runtime.load(folder / f"{name}.onnx") for name in FILES}


def shaped(example: Tensor, axes: Sequence[str | int], batch: int, time: int) -> Tensor:
    shape = [{"batch": batch, "time": time}.get(str(name), n) for name, n in zip(axes, example.shape, strict=True)]
    return torch.randn(shape)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_answers_at_every_size(kind: str, files: dict[str, runtime.Model]) -> None:
    make, example, sizes = FILES[kind]
    model, module = files[kind], make()
    assert model.signature.format_version == 2 or kind == "whole windows"
    for batch, time in sizes:
        x = shaped(example, model.signature.inputs[0].shape, batch, time)
        with torch.no_grad():
            expected = module(x).numpy()
        np.testing.assert_allclose(model.run(x.numpy()), expected, atol=fixed("float32"))


@pytest.mark.parametrize("kind", FILES)
def test_ragged_answers_are_those_of_each_sequence_alone(kind: str, files: dict[str, runtime.Model]) -> None:
    make, example, _ = FILES[kind]
    model, module = files[kind], make()
    shape = model.signature.inputs[0].shape
    batch_axis = shape.index("batch")
    times = {"audio": (251, 900, 377), "triples": (6, 3, 9), "whole windows": (16, 9, 90)}.get(kind, (4, 1, 9))
    rows = [shaped(example, shape, 1, time) for time in times]
    with torch.no_grad():
        alone = [module(row).numpy() for row in rows]
    expected = [a if kind.startswith("flat") else a[0] for a in alone]
    items = [row.select(batch_axis, 0).numpy() for row in rows]
    for got in (model.run(items), list(model.run_iter(items))):
        for own, wanted in zip(got, expected, strict=True):
            np.testing.assert_allclose(own, wanted, atol=fixed("float32"))


def test_a_padded_batch_is_cut_by_the_function_of_its_lengths(files: dict[str, runtime.Model]) -> None:
    model, module = files["strided"], kinds.strided()
    x = torch.randn(3, 9, 4)
    got = model.run(x.numpy(), lengths=[9, 4, 1])
    for row, length in enumerate((9, 4, 1)):
        with torch.no_grad():
            wanted = module(x[row : row + 1, :length]).numpy()[0]
        np.testing.assert_allclose(got[row, : len(wanted)], wanted, atol=fixed("float32"))
        assert not got[row, len(wanted) :].any()


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("audio", (1, 250), r"^input 'x' has size 250 along axis 'time', expected at least 251$"),
        ("triples", (1, 4, 4), r"^input 'x' has size 4 along axis 'time', expected a multiple of 3, at least 3$"),
    ],
)
def test_sizes_outside_the_limits_are_refused(
    kind: str, shape: tuple[int, ...], message: str, files: dict[str, runtime.Model]
) -> None:
    x = np.zeros(shape, np.float32)
    with pytest.raises(InputError, match=message):
        files[kind].run(x)
    with pytest.raises(InputError, match=message.replace("'x' has", "'x', item 1 has")):
        files[kind].run([np.zeros((300, *shape[2:]), np.float32), x[0]])


def test_two_sequences_of_their_own_lengths(tmp_path: Path) -> None:
    module = kinds.attending()
    export(module, tmp_path / "m.onnx", (torch.randn(2, 7, 4), torch.randn(2, 7, 3)))
    model = runtime.load(tmp_path / "m.onnx")
    assert [port.shape[1] for port in model.signature.inputs] == ["source", "time"]
    sources = [torch.randn(n, 4) for n in (5, 2, 5, 1)]
    targets = [torch.randn(n, 3) for n in (3, 8, 6, 1)]
    with torch.no_grad():
        alone = [module(s[None], t[None])[0].numpy() for s, t in zip(sources, targets, strict=True)]
    got = model.run([s.numpy() for s in sources], [t.numpy() for t in targets])
    for own, wanted in zip(got, alone, strict=True):
        np.testing.assert_allclose(own, wanted, atol=fixed("float32"))
    pairs = list(zip([s.numpy() for s in sources], [t.numpy() for t in targets], strict=True))
    for own, wanted in zip(model.run_iter(pairs), alone, strict=True):
        np.testing.assert_allclose(own, wanted, atol=fixed("float32"))
    with pytest.raises(InputError, match="use lists for both"):
        model.run(np.zeros((4, 5, 4), np.float32), [t.numpy() for t in targets])


COUNTS = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, runtime.Model]:
    module, path = kinds.vocoder(), tmp_path_factory.mktemp("tied") / "m.onnx"
    export(module, path, (torch.randn(2, 48), torch.randn(2, 5, 10), torch.randn(2, 7, 4), torch.full((2,), 7)))
    return module, runtime.load(path)


def spoken(frames: int, counts: Sequence[int], most: int) -> tuple[Tensor, ...]:
    rows = len(counts)
    return (
        torch.randn(rows, 6 * frames - 12),
        torch.randn(rows, 5, frames),
        torch.randn(rows, most, 4),
        torch.tensor(counts),
    )


@settings(deadline=None, max_examples=20)
@given(frames=st.integers(3, 30), counts=COUNTS)
def test_an_axis_that_follows_another_and_counts_along_a_third(
    frames: int, counts: list[int], vocoder: tuple[nn.Module, runtime.Model]
) -> None:
    """The file is given the relation, and takes all sizes that fit it; rows may have fewer entries than the longest."""
    module, model = vocoder
    assert [str(size) for port in model.signature.inputs for size in port.shape if size != "batch"] == [
        *("6*time-12", "5", "time", "memory", "4")
    ]
    tensors = spoken(frames, counts, max(counts))
    arrays = [tensor.numpy() for tensor in tensors]
    with torch.no_grad():
        expected = module(*tensors).numpy()
    np.testing.assert_allclose(model.run(*arrays), expected, atol=fixed("float32"))
    wrong = f"has size {6 * frames - 11} along axis '6\\*time-12', expected {6 * frames - 12}, as 'frames' has {frames}"
    with pytest.raises(InputError, match=f"^input 'samples' {wrong}"):
        model.run(np.zeros((len(counts), 6 * frames - 11), np.float32), *arrays[1:])
    with pytest.raises(InputError, match=rf"^input 'samples', item 0 {wrong}"):
        model.run([np.zeros(6 * frames - 11, np.float32)], [arrays[1][0]], [arrays[2][0]], arrays[3][:1])


def test_sequences_of_different_lengths_with_an_axis_that_follows(vocoder: tuple[nn.Module, runtime.Model]) -> None:
    module, model = vocoder
    items = [spoken(frames, [count], count) for frames, count in ((9, 3), (3, 7), (9, 3), (20, 1))]
    with torch.no_grad():
        alone = [module(*item)[0].numpy() for item in items]
    rows = [[tensor[0].numpy() for tensor in item] for item in items]
    samples, frames, memory, counts = zip(*rows, strict=True)
    found = model.run(list(samples), list(frames), list(memory), np.stack(counts))
    for own, wanted in zip(found, alone, strict=True):
        np.testing.assert_allclose(own, wanted, atol=fixed("float32"))
    with pytest.raises(NotStreamableError, match="input 'samples' has 6\\*time-12 steps"):
        model.stream()


def test_letters_in_words_ragged_both_ways(tmp_path: Path) -> None:
    module = kinds.letters()
    export(module, tmp_path / "m.onnx", torch.randn(2, 5, 7, 3), axes={"x": ("batch", "time", "letters", None)})
    model = runtime.load(tmp_path / "m.onnx")
    items = [torch.randn(words, letters, 3) for words, letters in ((4, 7), (1, 2), (6, 7), (2, 2))]
    with torch.no_grad():
        alone = [module(item[None])[0].numpy() for item in items]
    for own, wanted in zip(model.run([item.numpy() for item in items]), alone, strict=True):
        np.testing.assert_allclose(own, wanted, atol=fixed("float32"))
