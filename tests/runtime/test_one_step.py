"""The session for one step of one sequence: the same bits wherever it is used, and none where it cannot be had."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from rnncore import runtime
from rnncore.runtime import GatherOutput, Model, Stream
from rnncore.runtime.format.one_step import for_one_step
from rnncore.runtime.session import one_step
from rnncore.runtime.session.session import Engine
from tests.runtime.data import arguments, model, named, sequence, voice
from tests.runtime.files import ALL, Spec, causal_file, causal_graph, finish, signature

SPECS = [spec for spec in ALL if not spec.open_width]
PLAIN, LENGTHS = Spec(), Spec(lengths=True, learned=True, last=True, speaker=True)


def pushed(stream: Stream, spec: Spec, seed: int, chunks: list[int]) -> list[dict[str, Any]]:
    """What a stream answers to chunks of random steps."""
    rng = np.random.default_rng(seed)
    speaker = voice(rng)
    return [named(spec, stream.push(*arguments(spec, sequence(spec, rng, steps), speaker))) for steps in chunks]


def session_of(model: Model) -> Any:
    return model.engine.one_step_session()


# ------------------------------------------------------------------------------------------------------- the same bits
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_small_file_that_streams_has_one(spec: Spec) -> None:
    session = session_of(model(spec))
    assert session is session_of(model(spec)) is not None
    assert "lengths" not in {value.name for value in session.get_inputs()}
    assert all(isinstance(size, int) for value in session.get_inputs() for size in value.shape)


@given(st.sampled_from(SPECS), st.integers(0, 99), st.lists(st.sampled_from([1, 1, 1, 2, 5]), min_size=1, max_size=9))
def test_pushes_give_the_bits_of_the_whole_graph(spec: Spec, seed: int, chunks: list[int]) -> None:
    with model(spec).stream() as stream:
        found = pushed(stream, spec, seed, chunks)
        reached = stream.save()
    with mock.patch.object(Engine, "one_step_session", lambda self: None), model(spec).stream() as stream:
        for answer, wanted in zip(found, pushed(stream, spec, seed, chunks), strict=True):
            for name, array in wanted.items():
                np.testing.assert_array_equal(answer[name], array)
        assert stream.save() == reached


@given(st.integers(0, 99), st.lists(st.integers(0, 3), min_size=2, max_size=6))
def test_arguments_by_name_are_those_by_position(seed: int, spellings: list[int]) -> None:
    rng = np.random.default_rng(seed)
    with model(LENGTHS).stream() as stream, model(LENGTHS).stream() as twin:
        for spelling in spellings:
            x, speaker = sequence(LENGTHS, rng, 1), voice(rng)
            names = {"x": x, "speaker": speaker}
            arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
                ((x, speaker), {}),
                ((x,), {"speaker": speaker}),
                ((), {"speaker": speaker, "x": x}),
                ((names,), {}),
            ]
            by_position, by_name = arguments[spelling]
            answer = stream.push(*by_position, **by_name)
            for name, array in twin.push(x, speaker).items():
                np.testing.assert_array_equal(answer[name], array)
            before = stream.save()
            for wrong in ({"x": x}, {"x": x, "voice": speaker}, {**names, "voice": speaker}):
                with pytest.raises(runtime.InputError, match="input"):
                    stream.push(**wrong)
            with pytest.raises(runtime.InputError, match="input 'x' is given twice"):
                stream.push(x, **names)
            assert stream.save() == before


def test_a_file_that_can_be_asked_for_numbers_streams_without_being_asked() -> None:
    graph = causal_graph(PLAIN)
    graph.node.append(helper.make_node("GatherElements", ["y", "y.at"], ["y.pick"], axis=2))
    graph.input.append(helper.make_tensor_value_info("y.at", TensorProto.INT64, ["batch", "time", "picks"]))
    graph.output.append(helper.make_tensor_value_info("y.pick", TensorProto.FLOAT, ["batch", "time", "picks"]))
    asked = runtime.load(finish(graph, replace(signature(PLAIN), pick=GatherOutput("y", "y.at", "y.pick"))))
    session = session_of(asked)
    assert {value.name for value in session.get_inputs()} == {"x", "c", "h"}
    assert {value.name for value in session.get_outputs()} == {"y", "c_out", "h_out"}
    with asked.stream() as stream, model(PLAIN).stream() as twin:
        for answer, wanted in zip(pushed(stream, PLAIN, 3, [1] * 5), pushed(twin, PLAIN, 3, [1] * 5), strict=True):
            np.testing.assert_array_equal(answer["y"], wanted["y"])


# ---------------------------------------------------------------------------------------------------------- the bytes
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_bytes_are_a_model_whose_lengths_are_a_constant(spec: Spec) -> None:
    data = for_one_step(causal_file(spec), "lengths" if spec.lengths else None, None, ["y", "h_out"])
    found, whole = onnx.load_from_string(data), onnx.load_from_string(causal_file(spec))
    onnx.checker.check_model(found)
    names = [value.name for value in found.graph.input]
    assert names == [value.name for value in whole.graph.input if value.name != "lengths"]
    assert {value.name for value in found.graph.output} == {"y", "h_out"}
    assert not found.metadata_props
    assert found.graph.node == whole.graph.node
    added = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in found.graph.initializer}
    if spec.lengths:
        np.testing.assert_array_equal(added["lengths"], np.ones(1, np.int64), strict=True)
    assert len(added) == len(whole.graph.initializer) + spec.lengths


def test_what_nobody_asks_for_is_a_constant_too() -> None:
    graph = onnx.load_from_string(for_one_step(causal_file(PLAIN), None, "x", ["y"])).graph
    assert "x" not in {value.name for value in graph.input}
    nothing = next(tensor for tensor in graph.initializer if tensor.name == "x")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(nothing), np.zeros((1, 1, 1), np.int64), strict=True)


# ---------------------------------------------------------------------------------------------------- where there is none
def test_none_that_gives_other_bits_is_taken() -> None:
    """As if onnxruntime computed a graph of known sizes in another way."""
    loaded = runtime.load(causal_file(PLAIN))

    def another(data: bytes, *rest: Any) -> bytes:
        changed = onnx.load_from_string(for_one_step(data, *rest))
        half = next(tensor for tensor in changed.graph.initializer if tensor.name == "half")
        half.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.5000001), "half"))
        return changed.SerializeToString()

    with mock.patch.object(one_step, "for_one_step", another):
        assert session_of(loaded) is None
    with loaded.stream() as stream, model(PLAIN).stream() as twin:
        for answer, wanted in zip(pushed(stream, PLAIN, 5, [1] * 5), pushed(twin, PLAIN, 5, [1] * 5), strict=True):
            np.testing.assert_array_equal(answer["y"], wanted["y"])


@pytest.mark.parametrize(
    "made",
    [lambda *_: b"", lambda data, *_: data, lambda data, *_: data[:-40]],
    ids=["empty", "the whole file", "cut short"],
)
def test_none_that_onnxruntime_refuses_is_taken(made: Any) -> None:
    loaded = runtime.load(causal_file(LENGTHS))
    with mock.patch.object(one_step, "for_one_step", made):
        assert session_of(loaded) is None
    with loaded.stream() as stream:
        assert len(pushed(stream, LENGTHS, 1, [1, 1, 2])) == 3


def test_an_error_of_our_own_is_not_hidden() -> None:
    def broken(*_: Any) -> bytes:
        raise TypeError("of ours")

    loaded = runtime.load(causal_file(PLAIN))
    with mock.patch.object(one_step, "for_one_step", broken), pytest.raises(TypeError, match="of ours"):
        session_of(loaded)
    assert session_of(loaded) is not None, "it is asked for again"


def test_a_large_file_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_step, "_MOST_BYTES", len(causal_file(PLAIN)) - 1)
    assert session_of(runtime.load(causal_file(PLAIN))) is None
    monkeypatch.setattr(one_step, "_MOST_BYTES", len(causal_file(PLAIN)))
    assert session_of(runtime.load(causal_file(PLAIN))) is not None


def test_a_large_file_is_not_read_again_to_find_that_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(causal_file(PLAIN))
    loaded = runtime.load(path)
    monkeypatch.setattr(one_step, "_MOST_BYTES", len(causal_file(PLAIN)) - 1)
    with mock.patch("rnncore.runtime.reopening.read_again") as read:
        assert session_of(loaded) is None
    read.assert_not_called()


def test_a_file_whose_widths_are_free_has_none() -> None:
    assert session_of(model(Spec(learned=True, open_width=True))) is None


@pytest.mark.parametrize(
    "replaced", [None, causal_file(Spec(learned=True)), b"no model"], ids=["gone", "another", "none"]
)
def test_a_file_that_is_gone_or_another_one_streams_on(replaced: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(causal_file(PLAIN))
    loaded = runtime.load(path)
    path.unlink()
    if replaced is not None:
        path.write_bytes(replaced)
    assert session_of(loaded) is None
    with loaded.stream() as stream, model(PLAIN).stream() as twin:
        for answer, wanted in zip(pushed(stream, PLAIN, 5, [1] * 3), pushed(twin, PLAIN, 5, [1] * 3), strict=True):
            np.testing.assert_array_equal(answer["y"], wanted["y"])


# --------------------------------------------------------------------------------------------------- threads, processes
def test_many_threads_that_begin_at_once_open_one() -> None:
    loaded, found = runtime.load(causal_file(LENGTHS)), []
    together = threading.Barrier(8)

    def begin() -> None:
        together.wait()
        found.append(session_of(loaded))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len({id(session) for session in found}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_opens_its_own() -> None:
    loaded = runtime.load(causal_file(PLAIN))
    with loaded.stream() as stream, model(PLAIN).stream() as twin:
        pushed(stream, PLAIN, 1, [1, 1])
        pushed(twin, PLAIN, 1, [1, 1])
        wanted = pushed(twin, PLAIN, 2, [1])[0]["y"]
        parent = session_of(loaded)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                same = np.array_equal(pushed(stream, PLAIN, 2, [1])[0]["y"], wanted)
                status = 0 if same and session_of(loaded) is not parent else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
