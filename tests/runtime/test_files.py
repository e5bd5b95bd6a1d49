"""What ``load`` refuses, with which class, and what it says."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from rnncore import runtime
from rnncore.runtime.format.container import fingerprint_of, metadata_of, stamp
from rnncore.runtime.format.signature import BLANK_FINGERPRINT, FORMAT_VERSION, StateSpec, TensorSpec
from tests.runtime.files import Spec, causal_file, causal_graph, finish, signature


def test_load_reads_a_path_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "tägger.onnx"
    path.write_bytes(causal_file())
    for source in (path, str(path), causal_file()):
        model = runtime.load(source)
        assert model.inputs == ("x",)
        assert model.outputs == ("y",)
    assert "tägger.onnx: x float32[batch, time, 13] -> y float32[batch, time, 11]" in repr(runtime.load(path))
    assert "streams, 2 states" in repr(model)
    kept = [name for name, value in vars(model.engine.session).items() if isinstance(value, bytes) and value]
    assert not kept, "a loaded model does not take the size of its file once more"


def test_what_the_file_says_is_there_to_read() -> None:
    model = runtime.load(causal_file(), threads=2, arena=False)
    assert model.signature == signature(Spec())
    assert model.causal
    assert model.metadata["rnncore.form"] == "loop"
    assert model.fingerprint == model.metadata["rnncore.fingerprint"]
    model.report["max_abs_error"] = 5
    assert model.report == {"max_abs_error": 1e-7}
    with pytest.raises(TypeError):
        model.metadata["rnncore.form"] = "scan"  # type: ignore[index]


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_must_be_a_positive_integer(threads: object) -> None:
    with pytest.raises(runtime.InputError, match=r"threads is .* at least 1"):
        runtime.load(causal_file(), threads=threads)  # type: ignore[arg-type]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(runtime.NotOnnxError, match=r"gone\.onnx: there is no such file"):
        runtime.load(tmp_path / "gone.onnx")
    with pytest.raises(runtime.NotOnnxError, match="this is a directory"):
        runtime.load(tmp_path)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(runtime.NotOnnxError, match=r"empty\.onnx: the file is empty"):
        runtime.load(tmp_path / "empty.onnx")


@pytest.mark.parametrize(
    "data",
    [
        b"hello world, this is a text\n",
        b"PK\x03\x04" + bytes(100),
        b"\x00" * 64,
        b"{}",
        b"\x89PNG\r\n\x1a\n",
        b"\x08\x0a",
    ],
)
def test_other_kinds_of_file(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(runtime.NotOnnxError, match="no ONNX model"):
        runtime.load(data)
    assert capfd.readouterr() == ("", "")


def test_the_format_of_onnxruntime_says_which_file_to_load(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(causal_file(), options)
    with pytest.raises(runtime.NotOnnxError, match=r"model\.ort: .*\(\.ort\).*load the \.onnx file"):
        runtime.load(tmp_path / "model.ort")


def test_a_truncated_file_is_called_truncated() -> None:
    data = causal_file()
    with pytest.raises(runtime.NotOnnxError, match="truncated"):
        runtime.load(data[: len(data) // 2])


def test_an_onnx_file_of_somebody_else() -> None:
    model = onnx.load_from_string(causal_file())
    del model.metadata_props[:]
    model.metadata_props.add(key="author", value="somebody else")
    with pytest.raises(runtime.ForeignModelError, match="not written by rnncore"):
        runtime.load(model.SerializeToString())


def test_a_newer_file_asks_for_a_newer_rnncore() -> None:
    newer = FORMAT_VERSION + 1
    data = finish(causal_graph(Spec()), signature(Spec()), format_version=str(newer), fingerprint=None, stamped=False)
    with pytest.raises(
        runtime.FormatVersionError, match=f"format {newer}, this rnncore reads formats up to {FORMAT_VERSION}: upgrade"
    ):
        runtime.load(data)


@pytest.mark.parametrize("version", ["0", "-1", "one", ""])
def test_a_version_that_is_none(version: str) -> None:
    with pytest.raises(runtime.ModelFileError, match=r"rnncore\.format_version"):
        runtime.load(finish(causal_graph(Spec()), signature(Spec()), format_version=version))


def test_a_changed_weight_is_found() -> None:
    model = onnx.load_from_string(causal_file())
    tensor = next(t for t in model.graph.initializer if t.name == "W")
    tensor.raw_data = tensor.raw_data[:-1] + bytes([tensor.raw_data[-1] ^ 1])
    with pytest.raises(runtime.TamperedModelError, match="changed after export"):
        runtime.load(model.SerializeToString())


@pytest.mark.parametrize("key", ["format_version", "signature", "fingerprint"])
def test_a_missing_entry(key: str) -> None:
    data = finish(causal_graph(Spec()), signature(Spec()), stamped=key != "fingerprint", **{key: None})
    with pytest.raises(runtime.TamperedModelError, match=f"no rnncore.{key}"):
        runtime.load(data)


@pytest.mark.parametrize("fingerprint", ["", "abc", "Z" * 64, "0" * 64])
def test_a_fingerprint_that_is_none(fingerprint: str) -> None:
    data = finish(causal_graph(Spec()), signature(Spec()), fingerprint=fingerprint, stamped=False)
    with pytest.raises(runtime.TamperedModelError):
        runtime.load(data)


def test_a_doubled_fingerprint() -> None:
    model = onnx.load_from_string(causal_file())
    model.metadata_props.add(key="rnncore.fingerprint", value="1" * 64)
    with pytest.raises(runtime.TamperedModelError, match="exactly one"):
        runtime.load(model.SerializeToString())


def test_stamp_needs_a_blank_and_fingerprint_is_its_inverse() -> None:
    blank = finish(causal_graph(Spec()), signature(Spec()), stamped=False)
    data = stamp(blank)
    stored = metadata_of(data)["rnncore.fingerprint"]
    assert len(data) == len(blank)
    assert data.replace(stored.encode(), BLANK_FINGERPRINT.encode()) == blank
    assert fingerprint_of(data, stored) == fingerprint_of(blank, BLANK_FINGERPRINT) == stored
    with pytest.raises(runtime.ForeignModelError, match="64 zeros to fill in"):
        stamp(data)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"inputs": 3}'])
def test_a_signature_that_is_none(text: str) -> None:
    with pytest.raises(runtime.ModelFileError, match=r"rnncore\.signature in the file cannot be read"):
        runtime.load(finish(causal_graph(Spec()), signature(Spec()), signature=text))


@pytest.mark.parametrize("text", ["[]", "{"])
def test_a_report_that_is_none(text: str) -> None:
    with pytest.raises(runtime.ModelFileError, match=r"rnncore\.report"):
        runtime.load(finish(causal_graph(Spec()), signature(Spec()), report=text))


def test_every_fault_of_a_signature_is_listed() -> None:
    sound = signature(Spec())
    states = (
        replace(sound.states[0], initial="AAAA"),
        StateSpec("h", "c_out", "float32", 5, StateSpec.encode_initial(np.ones(4, "f"))),
        StateSpec("g", "g_out", "float33", 5),
        StateSpec("n", "n_out", "float32", 1, StateSpec.encode_initial(np.full(1, np.nan, "f"))),
    )
    inputs = (TensorSpec("x", "float32", ("time", "time", 13)), TensorSpec("q", "bfloat16", ("batch", -1)))
    said = ""  # by two signatures: a message has twelve lines at most
    for broken in (
        replace(sound, inputs=inputs, outputs=(), lengths=TensorSpec("n", "int32", ("batch",))),
        replace(sound, lengths=TensorSpec("n", "int64", ("batch",)), states=states, causal=False),
    ):
        with pytest.raises(runtime.ModelFileError, match="makes no sense") as caught:
            runtime.load(finish(causal_graph(Spec()), broken))
        assert "more lines" not in str(caught.value)
        said += str(caught.value)
    for line in (
        "there is no output",
        "input 'x' has shape [time, time, 13], expected exactly one batch axis",
        "at most one time axis",
        "input 'q' has the unknown dtype 'bfloat16'",
        "no negative size",
        "lengths 'n' is int32[batch], expected int64[batch]",
        "state 'c' has an initial value that cannot be decoded",
        "state 'h' has an initial value of 4 numbers, expected 5",
        "state 'g' has the unknown dtype 'float33'",
        "state 'n' has an initial value that is not finite",
        "there are states, but the model is not marked causal",
        "the name 'n' is used 2 times",
        "the name 'c_out' is used 2 times",
    ):
        assert line in said


def test_a_causal_signature_needs_time() -> None:
    still = replace(signature(Spec()), inputs=(TensorSpec("x", "float32", ("batch", 13)),))
    with pytest.raises(runtime.ModelFileError, match="causal, but no input has a time axis"):
        runtime.load(finish(causal_graph(Spec()), still))


def test_every_mismatch_of_signature_and_graph_is_listed() -> None:
    sound = signature(Spec())
    broken = replace(
        sound,
        inputs=(TensorSpec("x", "float64", ("batch", "time", 12)),),
        outputs=(TensorSpec("z", "float32", ("batch", "time", 11)),),
        states=(sound.states[0], replace(sound.states[1], size=6)),
        lengths=TensorSpec("lengths", "int64", ("batch",)),
    )
    with pytest.raises(runtime.ModelFileError, match="signature and graph of the file disagree") as caught:
        runtime.load(finish(causal_graph(Spec()), broken))
    for line in (
        "input 'lengths' is in the signature, not in the graph",
        "input 'x' is tensor(float) in the graph, tensor(double) in the signature",
        "input 'x' has shape [batch, time, 13] in the graph, [batch, time, 12] in the signature",
        "output 'z' is in the signature, not in the graph",
        "output 'y' is in the graph, not in the signature",
        "input 'h' has shape [batch, 5] in the graph, [batch, 6] in the signature",
        "output 'h_out' has shape",
    ):
        assert line in str(caught.value)


def test_a_frozen_time_axis_is_a_mismatch() -> None:
    graph = causal_graph(Spec())
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
    with pytest.raises(runtime.ModelFileError, match=r"\[batch, 7, 13\] in the graph, \[batch, time, 13\] in the sig"):
        runtime.load(finish(graph, signature(Spec())))


def test_a_graph_that_onnxruntime_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.load_from_string(finish(causal_graph(Spec()), signature(Spec()), stamped=False))
    model.graph.node.append(helper.make_node("NoSuchOperator", ["x"], ["nowhere"]))
    with pytest.raises(runtime.ModelFileError, match=r"onnxruntime [\d.]+ does not accept the model: .*NoSuchOperator"):
        runtime.load(stamp(model.SerializeToString()))
    assert capfd.readouterr() == ("", "")


SMALL = causal_file(Spec(lengths=True, learned=True))


@given(st.integers(0, len(SMALL) - 1))
def test_a_file_cut_anywhere_is_refused(size: int) -> None:
    with pytest.raises(runtime.ModelFileError):
        runtime.load(SMALL[:size])


@given(st.integers(0, len(SMALL) - 1), st.integers(0, 7))
def test_a_file_with_one_bit_flipped_is_refused(at: int, bit: int) -> None:
    data = bytearray(SMALL)
    data[at] ^= 1 << bit
    with pytest.raises(runtime.ModelFileError):
        runtime.load(bytes(data))


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused(data: bytes) -> None:
    with pytest.raises(runtime.ModelFileError):
        runtime.load(data)


@given(st.integers(0, len(SMALL)), st.binary(min_size=1, max_size=20))
def test_a_file_with_bytes_pushed_in_is_refused(at: int, extra: bytes) -> None:
    with pytest.raises(runtime.ModelFileError):
        runtime.load(SMALL[:at] + extra + SMALL[at:])


def test_metadata_is_what_onnx_reads() -> None:
    model = onnx.load_from_string(SMALL)
    assert metadata_of(SMALL) == {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata_of(SMALL)["rnncore.signature"])["causal"] is True


def test_many_threads_share_one_model() -> None:
    model = runtime.load(causal_file(Spec(lengths=True)))
    rng = np.random.default_rng(7)
    inputs = [rng.standard_normal((batch, 23, 13)).astype("f") for batch in (2, 3, 5, 7)]
    wanted = [model.run(x) for x in inputs]
    wrong: list[int] = []

    def work(k: int) -> None:
        if not all(np.array_equal(model.run(inputs[k]), wanted[k]) for _ in range(20)):
            wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_learned_float64_state_survives_the_signature() -> None:
    value = np.linspace(-1, 1, 5)
    assert np.array_equal(StateSpec("s", "t", "float64", 5, StateSpec.encode_initial(value)).initial_value(), value)


def test_an_output_may_be_free_in_name_only() -> None:
    free = replace(signature(Spec()), outputs=(TensorSpec("y", "float32", ("batch", "time", "width")),))
    model = runtime.load(finish(causal_graph(Spec()), free))
    assert model.run(np.ones((2, 3, 13), "f")).shape == (2, 3, 11)


def test_limits_that_no_id_keeps_are_refused() -> None:
    sound = signature(Spec(ids=True))
    for port, message in (
        (replace(sound.inputs[0], limit=0), "between which there is no id"),
        (replace(sound.inputs[0], minimum=9, limit=9), "minimum 9, limit 9"),
        (replace(sound.inputs[0], dtype="float32", limit=3), "float32, but has limits"),
    ):
        with pytest.raises(runtime.ModelFileError, match=message):
            runtime.load(finish(causal_graph(Spec(ids=True)), replace(sound, inputs=(port, *sound.inputs[1:]))))


def test_what_is_no_file_and_no_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"12345")
    with (
        path.open("rb") as file,
        pytest.raises(runtime.InputError, match=r"^source is a BufferedReader, .* file.read\(\)$"),
    ):
        runtime.load(file)  # type: ignore[arg-type]
    with pytest.raises(runtime.InputError, match=r"^source is a int, expected the path of a file, or its bytes$"):
        runtime.load(3)  # type: ignore[arg-type]
    for source in (bytearray(b"12345"), memoryview(b"12345")):
        with pytest.raises(runtime.NotOnnxError):
            runtime.load(source)
