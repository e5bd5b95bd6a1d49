"""Files of format 1 go on answering; format 2 is written only where it says more, and says it without loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore import runtime
from rnncore.runtime.format.axes import Axis, Flat, Steps
from rnncore.runtime.format.signature import Signature, StateSpec, TensorSpec
from rnncore.runtime.tensors.graph_contract import signature_problems
from rnncore.runtime.tensors.specs import Slot

OLD = sorted((Path(__file__).parent / "format1").glob("*.onnx"))


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_file_of_format_1_answers_as_on_the_day_it_was_written(path: Path) -> None:
    model = runtime.load(path)
    assert model.metadata["rnncore.format_version"] == "1"
    if model.signature.pick is None:  # those indices had a default in the graph; of newer files they are an input
        assert model.signature.format_version == 1
        assert model.signature.to_json() == model.metadata["rnncore.signature"]
    report = runtime.verify(model)
    assert report.passed, str(report)


def test_there_are_files_of_format_1_of_every_kind() -> None:
    models = {path.stem: runtime.load(path) for path in OLD}
    assert {model.causal for model in models.values()} == {True, False}
    assert models["both_ways"].signature.lengths is not None
    assert models["tagger"].signature.pick is not None
    assert models["causal"].metadata["rnncore.form"] == "fused"


NAMES = st.sampled_from(["batch", "time", "source"])
STEPS = st.builds(
    Steps, st.sampled_from(["time", "source"]), st.integers(1, 9), st.integers(-300, 300), st.integers(1, 400)
)
SIZES = st.one_of(st.integers(1, 50), NAMES, STEPS, st.builds(Flat, st.tuples(NAMES, NAMES | STEPS)))
AXES = st.builds(Axis, NAMES, st.integers(0, 9), st.none() | st.integers(9, 99), st.integers(1, 8))


@given(shape=st.lists(SIZES, max_size=4), axes=st.lists(AXES, max_size=3), stride=st.integers(1, 9))
def test_a_signature_comes_back_from_its_text(shape: list[int | str], axes: list[Axis], stride: int) -> None:
    port = TensorSpec("y", "float32", tuple(shape))
    state = StateSpec("h", "h.next", "float32", 6, None, (2, "batch", 3))
    for states in ((), (state,)):
        known = Signature((port,), (port,), None, states, axes=tuple(axes), stride=stride)
        again = Signature.from_json(known.to_json())
        assert again == known
        assert [type(size) for size in again.outputs[0].shape] == [type(size) for size in port.shape]
        newer = axes or stride > 1 or states or any(isinstance(size, Steps | Flat) for size in shape)
        assert known.format_version == (2 if newer else 1)
        assert ('"axes"' in known.to_json()) is (known.format_version == 2)


@given(steps=STEPS, n=st.integers(0, 5000))
def test_steps_are_whole_and_never_negative(steps: Steps, n: int) -> None:
    exact = (steps.times * n + steps.plus) / steps.over
    assert steps.at(n) == max(0, int(np.floor(exact)))


@given(batch=st.integers(1, 5), time=st.integers(0, 9), inner_first=st.booleans())
def test_flat_axes_are_unfolded_and_folded(batch: int, time: int, inner_first: bool) -> None:
    half = Steps("time", plus=1, over=2)
    port = TensorSpec("y", "float32", (Flat((half, "batch") if inner_first else ("batch", half)), 3))
    slot = Slot.of(port)
    flat = np.arange(batch * half.at(time) * 3, dtype=np.float32).reshape(-1, 3)
    whole = slot.unfolded(flat, batch, time)
    assert slot.rows(whole).shape == (batch, half.at(time), 3)
    np.testing.assert_array_equal(slot.folded(whole), flat)


def test_a_signature_that_contradicts_itself_is_told() -> None:
    x = TensorSpec("x", "float32", ("batch", "time", 3))
    y = TensorSpec("y", "float32", ("batch", Steps("width"), 3))
    known = Signature((x,), (y,), axes=(Axis("width"), Axis("time", 5, 4)), stride=0)
    problems = "\n".join(signature_problems(known))
    assert "stride is 0" in problems
    assert "axis 'width'" in problems and "axis 'time'" in problems
    assert "no input has an axis 'width'" in problems
