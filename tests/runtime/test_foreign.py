"""ONNX files that rnncore did not write, streamed all the same: any order of axes, against a GRU in NumPy."""

from __future__ import annotations

import pickle
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rnncore import runtime
from tests.runtime.data import BOUND
from tests.runtime.files import Spec, causal_file, signature
from tests.runtime.foreign_files import (
    CHUNK,
    FEATURES,
    LAYERS,
    H,
    Variant,
    foreign_file,
    reference,
    weights,
    window_file,
    window_reference,
)
from tests.tolerances import fixed

STATES = {"h": "hn"}
PLAIN = Variant()
# Files that need no word about their axes, as torch and others write them.
SELF_EVIDENT = (
    PLAIN,
    Variant(batch="N", time="T"),
    Variant(x="time batch features", y="time batch hidden", batch="N", time="T"),  # nn.GRU, not batch first
    Variant(h="batch hidden", dtype="float64"),
    Variant(x="batch features", h="batch hidden", y="batch hidden"),  # one call is one step
    Variant(batch=1),
    Variant(batch=1, time=1, scale=True),  # a frame a call, batch of one
    Variant(time=1, y="batch time hidden"),
    Variant(x="time features", h="hidden", y="time hidden"),  # nn.GRU without a batch
    Variant(x="features", h="hidden", y="hidden"),
)


def load(variant: Variant, **options: Any) -> runtime.Model:
    if variant.scale:
        options["constants"] = {"scale": 1.0}
    return runtime.load(foreign_file(variant), states=STATES, **options)


loaded = cache(load)


def told(variant: Variant) -> dict[str, str]:
    return {"x": variant.x, "h": variant.h, "y": variant.y, "hn": variant.h}


@cache
def model_of(variant: Variant, by_itself: bool) -> runtime.Model:
    return load(variant) if by_itself else load(variant, axes=told(variant))


def sequence(rng: np.random.Generator, steps: int, dtype: str = "float32") -> np.ndarray:
    return rng.standard_normal((steps, FEATURES)).astype(dtype)


def cuts(draw: st.DrawFn, steps: int) -> list[int]:
    inner = draw(st.lists(st.integers(0, steps), max_size=4), label="cuts")
    return [0, *sorted(inner), steps]


@st.composite
def variants(draw: st.DrawFn) -> tuple[Variant, bool]:
    """A variant, and whether it explains itself."""
    if draw(st.booleans(), label="self-evident"):
        return draw(st.sampled_from(SELF_EVIDENT), label="variant"), True
    lonely = draw(st.booleans(), label="lonely")
    timeless = draw(st.booleans(), label="timeless")
    left_out = {word for word, out in (("batch", lonely and draw(st.booleans())), ("time", timeless)) if out}

    def words(*names: str) -> str:
        return " ".join(draw(st.permutations([name for name in names if name not in left_out])))

    layers = draw(st.sampled_from([(), ("layers",)]))
    batch = draw(st.sampled_from([1] if lonely else [None, "N"]))
    time = None if timeless else draw(st.sampled_from([None, "T", 1]))
    x, h, y = words("batch", "time", "features"), words("batch", *layers, "hidden"), words("batch", "time", "hidden")
    return Variant(x, h, y, batch, time, dtype=draw(st.sampled_from(["float32", "float64"]))), False


@given(variants(), st.integers(0, 7), st.data())
def test_any_order_of_axes_streams_like_numpys_gru(
    drawn: tuple[Variant, bool], steps: int, data: st.DataObject
) -> None:
    variant, by_itself = drawn
    model = model_of(variant, by_itself)
    rng = np.random.default_rng(steps)
    x = sequence(rng, steps, variant.dtype)
    expected, last = reference(x)
    at = cuts(data.draw, steps)
    with model.stream() as stream:
        parts = [stream.push(x[a:b]) for a, b in pairwise(at)]
        np.testing.assert_allclose(np.concatenate(parts), expected, **BOUND)
        assert stream.steps == steps
        h = stream.state["h"]
        # The state keeps the graph's order of its axes, without the batch.
        inner = variant.h.split()
        order = [word for word in inner if word != "batch"]
        assert h.shape == tuple(
            {"layers": LAYERS, "hidden": H // (LAYERS if "layers" in order else 1)}[w] for w in order
        )
        flat = h.T if order == ["hidden", "layers"] else h
        np.testing.assert_allclose(flat.ravel(), last, **BOUND)
        more = sequence(rng, 3, variant.dtype)
        twin, back = stream.fork(), model.restore(stream.save())
        other = model.stream()
        other.set_state(stream.state)
        expected, _ = reference(more, last)
        for follower in (stream, twin, back, other):
            np.testing.assert_allclose(follower.push(more), expected, **BOUND)


@given(variants(), st.lists(st.integers(0, 5), min_size=2, max_size=5), st.integers(0, 99))
def test_many_streams_of_any_length_share_calls(drawn: tuple[Variant, bool], lengths: list[int], seed: int) -> None:
    variant, by_itself = drawn
    model = model_of(variant, by_itself)
    rng = np.random.default_rng(seed)
    streams = [model.stream() for _ in lengths]
    before = [sequence(rng, i + 1, variant.dtype) for i in range(len(lengths))]
    chunks = [sequence(rng, length, variant.dtype) for length in lengths]
    for stream, own in zip(streams, before, strict=True):
        stream.push(own)
    answers = model.push_many(streams, chunks)
    whole = model.run(chunks)
    for own, chunk, answer, alone in zip(before, chunks, answers, whole, strict=True):
        expected, _ = reference(np.concatenate([own, chunk]))
        np.testing.assert_allclose(answer, expected[len(own) :], **BOUND)
        np.testing.assert_allclose(alone, reference(chunk)[0], **BOUND)


@pytest.mark.parametrize("variant", [PLAIN, Variant(batch=1, time=1, scale=True)], ids=["batches", "one by one"])
def test_a_pool_serves_foreign_streams(variant: Variant) -> None:
    model = model_of(variant, True)
    rng = np.random.default_rng(3)
    data = [sequence(rng, 11 + i) for i in range(5)]
    with model.pool(max_batch=4, slice_steps=3) as pool:
        pool.warm_up()
        streams = [pool.open() for _ in data]
        first = [stream.push(x[:4]) for stream, x in zip(streams, data, strict=True)]
        moved = pool.restore(streams[0].save())
        assert streams[0].state["h"].shape == (LAYERS, H // LAYERS)
        rest = [stream.push(x[4:]) for stream, x in zip([moved, *streams[1:]], data, strict=True)]
    for x, start, end in zip(data, first, rest, strict=True):
        np.testing.assert_allclose(np.concatenate([start, end]), reference(x)[0], **BOUND)


@pytest.mark.parametrize("spec", [Spec(), Spec(ids=True), Spec(time_major=True, last=True, speaker=True)], ids=str)
def test_a_file_of_ours_without_its_metadata_answers_alike(spec: Spec) -> None:
    ours = runtime.load(causal_file(spec))
    bare = onnx.load_from_string(causal_file(spec))
    del bare.metadata_props[:]
    states = {state.name: state.output for state in signature(spec).states}
    words = "time batch features" if spec.time_major else "batch time features"
    main = ours.inputs[0]
    theirs = runtime.load(
        bare.SerializeToString(),
        states=states,
        axes={main: " ".join(words.split()[: 2 if spec.ids else 3])}
        | ({"speaker": "batch size"} if spec.speaker else {}),
    )
    rng = np.random.default_rng(4)
    item = rng.integers(0, 17, 9) if spec.ids else rng.standard_normal((9, 13)).astype(np.float32)
    speaker = (rng.standard_normal(3).astype(np.float32),) if spec.speaker else ()
    with ours.stream() as one, theirs.stream() as two:
        for a, b in ((0, 4), (4, 5), (5, 9)):
            expected, got = one.push(item[a:b], *speaker), two.push(item[a:b], *speaker)
            for name in ours.outputs:
                left, right = (answer[name] if spec.last else answer for answer in (expected, got))
                np.testing.assert_array_equal(left, right)
        assert {name: value.tolist() for name, value in one.state.items()} == {
            name: value.tolist() for name, value in two.state.items()
        }


def test_initial_values_and_constants() -> None:
    variant = Variant(scale=True)
    rng = np.random.default_rng(8)
    h, x = rng.standard_normal((LAYERS, H // LAYERS)).astype(np.float32), sequence(rng, 5)
    model = runtime.load(foreign_file(variant), states=STATES, initial={"h": h}, constants={"scale": np.float64(-2)})
    h_before = h.copy()
    h[:] = 7  # the model has its own
    expected, _ = reference(x, h_before.ravel())
    stream = model.stream()
    for _ in range(2):
        np.testing.assert_allclose(stream.push(x), -2 * expected, **BOUND)
        stream.reset()
    np.testing.assert_allclose(model.run(x[None, :2])[0], -2 * expected[:2], **BOUND)


@pytest.mark.parametrize("context", [0, 4])
@given(steps=st.integers(0, 5), data=st.data())
def test_chunks_of_fixed_size_with_a_context(context: int, steps: int, data: st.DataObject) -> None:
    model = window_model(context)
    samples = np.random.default_rng(steps).standard_normal(steps * CHUNK).astype(np.float32)
    expected = window_reference(samples, context)
    at = cuts(data.draw, steps)
    stream, flat = model.stream(), model.stream()
    parts = []
    for a, b in pairwise(at):
        parts.append(stream.push(samples[a * CHUNK : b * CHUNK]))
        np.testing.assert_array_equal(flat.push(samples[a * CHUNK : b * CHUNK].reshape(-1, CHUNK)), parts[-1])
        stream = model.restore(stream.fork().save())
    np.testing.assert_allclose(np.concatenate([np.zeros((0, 1)), *parts]), expected, **BOUND)
    assert stream.steps == steps
    several = model.run([samples, samples[:CHUNK], samples[:0]])
    for answer, n in zip(several, (steps, 1, 0), strict=True):
        np.testing.assert_allclose(answer, expected[:n], **BOUND)


@cache
def window_model(context: int) -> runtime.Model:
    options: dict[str, Any] = {"states": {"total": "total_out"}, "chunk": CHUNK, "context": context}
    return runtime.load(window_file(context), **options, max_steps=5)


def test_a_part_of_a_chunk_is_refused_and_changes_nothing() -> None:
    with window_model(4).stream() as stream:
        stream.push(np.ones(CHUNK, np.float32))
        before = stream.save()
        with pytest.raises(runtime.InputError, match=f"'samples' has 8 samples, the model takes chunks of {CHUNK}"):
            stream.push(np.ones(CHUNK + 1, np.float32))
        with pytest.raises(runtime.InputError, match="6 steps, this model was loaded with max_steps=5"):
            stream.push(np.ones(6 * CHUNK, np.float32))
        assert stream.save() == before


@pytest.mark.parametrize("variant", [PLAIN, Variant(batch=1, time=1, scale=True)], ids=["batches", "one by one"])
def test_a_state_is_never_reset_when_the_batch_changes(variant: Variant) -> None:
    model = model_of(variant, True)
    rng = np.random.default_rng(5)
    data = [sequence(rng, 12) for _ in range(3)]
    streams = [model.stream() for _ in data]
    answers: list[list[np.ndarray]] = [[] for _ in data]
    for t, rows in enumerate([(0,), (0, 1, 2), (1,), (2, 0), (1, 2), (0, 1, 2)]):
        chunks = [data[i][len(np.concatenate([[], *[a[:, 0] for a in answers[i]]])) :][: t + 1] for i in rows]
        for i, answer in zip(rows, model.push_many([streams[i] for i in rows], chunks), strict=True):
            answers[i].append(answer)
    for x, own in zip(data, answers, strict=True):
        got = np.concatenate(own)
        np.testing.assert_allclose(got, reference(x[: len(got)])[0], **BOUND)


def test_a_model_without_states_runs_and_says_why_it_does_not_stream() -> None:
    bare = onnx.load_from_string(causal_file())
    del bare.metadata_props[:]
    model = runtime.load(bare.SerializeToString(), states={}, axes={"c": "batch size", "h": "batch size"})
    x, state = np.ones((2, 3, 13), np.float32), np.zeros((2, 7), np.float32)
    y = model.run(x, state, np.zeros((2, 5), np.float32))["y"]
    np.testing.assert_array_equal(y, runtime.load(causal_file()).run(x))
    with pytest.raises(runtime.NotStreamableError, match=r"states=\{\}"):
        model.stream()


def test_the_fingerprint_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "somebody.onnx"
    path.write_bytes(foreign_file())
    model = runtime.load(path, states=STATES)
    stream = model.stream()
    expected = stream.push(np.ones((2, FEATURES), np.float32))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.stream().push(np.ones((2, FEATURES), np.float32)), expected)
    assert again.fingerprint == model.fingerprint
    assert again.restore(stream.save()).steps == 2
    with pytest.raises(runtime.SnapshotError, match="another model"):
        model_of(Variant(batch="N", time="T"), True).restore(stream.save())
    pickled = pickle.dumps(model)
    path.write_bytes(foreign_file(Variant(batch="N", time="T")))
    with pytest.raises(runtime.TamperedModelError, match="has changed since it was loaded"):
        pickle.loads(pickled)


def two_states_file() -> bytes:
    """Two states of one size: either output may be said to be either."""
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "h", "c")]
    scale = helper.make_tensor_value_info("scale", TensorProto.FLOAT, [])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("y", "hn", "cn")]
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["z"]),
        helper.make_node("Add", ["z", "h"], ["hn"]),
        helper.make_node("Sub", ["z", "c"], ["cn"]),
        helper.make_node("Add", ["hn", "cn"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "two", [*rows, scale], ends)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


TWO: dict[str, Any] = {"states": {"h": "hn", "c": "cn"}, "constants": {"scale": 2.0}}


@pytest.mark.parametrize(
    "otherwise",
    [
        {"states": {"h": "cn", "c": "hn"}},
        {"constants": {"scale": 2.5}},
        {"initial": {"h": [1.0, 2.0, 3.0]}},
    ],
    ids=str,
)
def test_a_state_does_not_go_on_in_the_same_file_read_otherwise(otherwise: dict[str, Any]) -> None:
    model, other = runtime.load(two_states_file(), **TWO), runtime.load(two_states_file(), **{**TWO, **otherwise})
    stream = model.stream()
    stream.push(np.ones((2, 3), "f"))
    with pytest.raises(runtime.SnapshotError, match="another model"):
        other.restore(stream.save())
    with other.pool() as pool, pytest.raises(runtime.SnapshotError, match="another model"):
        pool.restore(stream.save())
    assert other.fingerprint != model.fingerprint


def test_a_state_goes_on_in_the_same_file_read_alike() -> None:
    stream = runtime.load(two_states_file(), **TWO).stream()
    chunk = np.ones((2, 3), "f")
    stream.push(chunk)
    alike = runtime.load(two_states_file(), states=TWO["states"], constants={"scale": np.float64(2)}, threads=2)
    np.testing.assert_array_equal(alike.restore(stream.save()).push(chunk), stream.push(chunk))


def test_without_states_the_refusal_says_how_to_load_it(tmp_path: Path) -> None:
    path = tmp_path / "somebody.onnx"
    path.write_bytes(foreign_file())
    with pytest.raises(runtime.ForeignModelError, match=r"somebody\.onnx: .*not written by rnncore.*states=\{\"h\""):
        runtime.load(path)
    with pytest.raises(runtime.InputError, match="written by rnncore and knows its states"):
        runtime.load(causal_file(), states={"c": "c_out"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": {"c": "hn"}}, "there is no input 'c' to be a state"),
        ({"states": {"h": "cn"}}, "there is no output 'cn' for the state 'h'"),
        ({"states": {"h": "y"}}, r"state 'h' goes in as \[2, 2, 3\], 'y' comes out as \[2, 5, 6\]: pair other names"),
        ({"states": {"h": "hn", "x": "hn"}}, "the output 'hn' is used for several states"),
        ({"states": {}, "constants": {"z": 1}}, "there is no input 'z' to be constant"),
        ({"states": STATES, "axes": {"q": "batch"}}, "axes are given for 'q', which is no input or output"),
        ({"states": STATES, "axes": {"x": "batch time"}}, r"axes\['x'\] names 2 axes, the graph has 3: \[\?, \?, 5\]"),
        (
            {"states": STATES, "axes": {"x": "batch time 4"}},
            r"axes\['x'\] says \[\?, \?, 4\], the graph has \[\?, \?, 5\]",
        ),
        (
            {"states": STATES, "axes": {"h": "batch layers hidden"}},
            r"size of state 'h' \[2, \?, 3\] is not known: say which",
        ),
        ({"states": STATES, "axes": {"h": "batch 7 hidden"}}, "the batch axis of 'h' has the fixed size 2"),
        ({"states": STATES, "axes": {"y": "time batch hidden"}}, r"calls axis 1 the batch, but it has 5 of 2"),
        ({"states": STATES, "axes": {"y": "batch hidden time"}}, "calls axis 2 time, but it has 6 of 5 steps"),
        ({"states": STATES, "axes": {"y": "batch time"}}, r"axes\['y'\] names 2 axes, the graph has 3"),
        (
            {"states": STATES, "initial": {"h": np.zeros(6)}},
            r"initial\['h'\] has shape \[6\], one sequence has \[2, 3\]",
        ),
        ({"states": STATES, "initial": {"x": np.zeros(6)}}, "initial is given for 'x', which is no state"),
        ({"states": STATES, "constants": {"h": 1}}, "'h' is a state and a constant"),
        ({"states": STATES, "constants": {"x": np.zeros((1, 2, 5))}}, "nothing left to push"),
        ({"states": STATES, "context": 3}, "context= a chunk of fixed size"),
    ],
)
def test_a_wrong_pairing_lists_what_there_is(options: dict[str, Any], message: str) -> None:
    with pytest.raises(runtime.ForeignModelError, match=message) as caught:
        runtime.load(foreign_file(), **options)
    assert "its inputs are x float32[?, ?, 5], h float32[2, ?, 3]" in str(caught.value)
    assert "its outputs are y float32[?, ?, 6], hn float32[2, ?, 3]" in str(caught.value)


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        (Variant(scale=True), {}, r"input 'scale' is a single number: say constants=\{'scale': value\}"),
        (
            Variant(scale=True),
            {"constants": {"scale": [1, 2]}},
            r"could not run .* \(zeros: scale \[2\], x \[2, 1009, 5\]",
        ),
        (Variant(time=3), {"chunk": 4}, "input 'x' takes 3 samples a call, not chunk=4 and context=0"),
        (Variant(time=3), {"context": 3}, "input 'x' takes 3 samples, context=3 leaves none"),
        (Variant(batch=4), {"axes": {"x": Variant.x}}, "the batch axis of 'x' has the fixed size 4"),
    ],
)
def test_what_cannot_be_run_is_refused(variant: Variant, options: dict[str, Any], message: str) -> None:
    with pytest.raises(runtime.ForeignModelError, match=message):
        runtime.load(foreign_file(variant), states=STATES, **options)


def test_weights_in_another_file_of_the_folder_are_read(tmp_path: Path) -> None:
    path = tmp_path / "somebody.onnx"
    onnx.save_model(
        onnx.load_from_string(foreign_file()), path, save_as_external_data=True, size_threshold=100, location="w"
    )
    model = runtime.load(path, states=STATES)
    x = np.random.default_rng(2).normal(size=(2, 7, 5)).astype(np.float32)
    np.testing.assert_array_equal(model.run(x), runtime.load(foreign_file(), states=STATES).run(x))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.run(x), model.run(x))
    weights = bytearray((tmp_path / "w").read_bytes())
    weights[3] ^= 1
    (tmp_path / "w").write_bytes(weights)
    with pytest.raises(runtime.TamperedModelError, match="has changed since it was loaded"):
        pickle.loads(pickle.dumps(model))
    (tmp_path / "w").unlink()
    with pytest.raises(runtime.NotOnnxError, match="which is not there: copy both files"):
        runtime.load(path, states=STATES)


def test_states_of_another_dtype_are_no_pair() -> None:
    graph = onnx.load_from_string(foreign_file())
    graph.graph.node.append(onnx.helper.make_node("Cast", ["hn"], ["hn64"], to=onnx.TensorProto.DOUBLE))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("hn64", onnx.TensorProto.DOUBLE, [2, None, 3]))
    with pytest.raises(runtime.ForeignModelError, match=r"'h' is a tensor\(float\), 'hn64' is a tensor\(double\)"):
        runtime.load(graph.SerializeToString(), states={"h": "hn64"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": ["h"]}, "states is a list, expected a dict"),
        ({"states": {"h": 1}}, r"states\['h'\] is a int, expected the name of an output"),
        ({"states": STATES, "axes": {"x": ("batch", "time")}}, r"axes\['x'\] is a tuple, expected a text"),
        ({"states": STATES, "axes": {"x": "batch batch"}}, "says 'batch' 2 times"),
        ({"states": STATES, "chunk": 0}, "chunk is 0, expected an integer of at least 1"),
        ({"states": STATES, "context": -1}, "context is -1, expected an integer of at least 0"),
        ({"states": STATES, "constants": {"x": "a"}}, "has dtype <U1, expected numbers"),
        ({"states": STATES, "constants": {"x": [[1], [1, 2]]}}, "cannot be made an array"),
        ({"chunk": 3, "axes": {"x": "batch"}}, "axes, chunk without states"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(runtime.InputError, match=message):
        runtime.load(foreign_file(), **options)


def reader_file(every: int, *, one_row: bool) -> bytes:
    """A reader that answers each ``every``-th step, time first as recognisers have it: [time / every, batch, H]."""
    node, w = helper.make_node, weights()
    batch = 1 if one_row else "rows"
    constants = {"first": np.array([0]), "last": np.array([2**62]), "axis": np.array([0]), "every": np.array([every])}
    constants |= {"one": np.array([1]), **w}
    nodes = [
        node("Transpose", ["x"], ["x_t"], perm=[1, 0, 2]),
        node("Slice", ["x_t", "first", "last", "axis", "every"], ["cut"]),
        node("GRU", ["cut", "W", "R", "B"], ["y4"], hidden_size=H, linear_before_reset=1),
        node("Squeeze", ["y4", "one"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "reader",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, "frames", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return model.SerializeToString()


@pytest.mark.parametrize("one_row", [False, True], ids=["free batch", "one row"])
@pytest.mark.parametrize("every", [2, 8])
def test_an_output_of_fewer_steps_is_cut_by_its_function(every: int, one_row: bool) -> None:
    model = runtime.load(reader_file(every, one_row=one_row), states={})
    (port,) = model.signature.outputs
    assert [str(size) for size in port.shape] == ["batch", f"(time+{every - 1})//{every}", str(H)]
    rows = [np.random.default_rng(n).standard_normal((n, FEATURES)).astype(np.float32) for n in (17, 3, 8)]
    for row, got in zip(rows, model.run(rows), strict=True):
        np.testing.assert_allclose(got, reference(row[::every])[0], atol=fixed("float32"))
    padded = np.zeros((3, 17, FEATURES), np.float32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    got = model.run(padded, lengths=[len(row) for row in rows])
    np.testing.assert_allclose(got[1, : -(-3 // every)], reference(rows[1][::every])[0], atol=fixed("float32"))
    assert not got[1, -(-3 // every) :].any()
