"""What a file of somebody unknown may ask for: bounded in time and memory, and only errors of ours."""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from rnncore import runtime
from rnncore.cli.app import app
from rnncore.cli.console import printable
from rnncore.runtime.format.container import FINGERPRINT_KEY, metadata_of, replace_metadata, stamp
from rnncore.runtime.format.golden import Golden
from rnncore.runtime.format.signature import BLANK_FINGERPRINT
from rnncore.runtime.text.vocabulary import Vocabulary
from tests.runtime.files import C, Spec, causal_file, causal_graph, finish, signature


def with_metadata(**entries: str) -> bytes:
    named = {f"rnncore.{key}": value for key, value in entries.items()}
    return stamp(replace_metadata(causal_file(), {**named, FINGERPRINT_KEY: BLANK_FINGERPRINT}))


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The model with its signature changed by hand."""
    data = json.loads(metadata_of(causal_file())["rnncore.signature"])
    change(data)
    return with_metadata(signature=json.dumps(data))


def array(shape: list[int], dtype: str = "float32", zeros: int | None = None) -> dict[str, Any]:
    raw = bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize if zeros is None else zeros)
    return {"dtype": dtype, "shape": shape, "data": base64.b64encode(zlib.compress(raw, 9)).decode()}


def golden(**changes: Any) -> str:
    case = {"kind": "whole", "batch": 1, "time": 2, "lengths": None, "chunks": None}
    case |= {"inputs": {"x": array([1, 2, 13])}, "outputs": {"y": {"of": [1, 2, 11], "every": 1, **array([22])}}}
    case |= {key: value for key, value in changes.items() if key in case}
    data = {"measure": "max", "tolerance": 1e9, "cases": [case] * changes.get("count", 1), "left_out": []}
    return json.dumps({**data, **{key: value for key, value in changes.items() if key in data}})


HOSTILE_METADATA = {
    "deep report": {"report": "[" * 100_000},
    "deep signature": {"signature": '{"a":' * 100_000},
    "deep and hidden": {"report": '{"a":"\\"' + "[" * 10 + '","b":' + "[" * 1000},
    "quotes": {"report": '{"' + '\\"' * 1_000_000},
    "large": {"notes": "x" * (65 << 20)},
    "no number": {"format_version": "9" * 5000},
    "list of nothing": {"report": "[]"},
    "constant": {"signature": "NaN"},
}


@pytest.mark.parametrize("what", HOSTILE_METADATA)
def test_metadata_are_bounded(what: str) -> None:
    with pytest.raises(runtime.ModelFileError) as caught:
        runtime.load(with_metadata(**HOSTILE_METADATA[what]))
    assert len(str(caught.value)) < 2000


SIZES = [10**30, 10**12, 2**31, -1, -(10**30), 1.5, "7", None, True, [7], float("inf")]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes_of_states_are_bounded(size: Any) -> None:
    with pytest.raises(runtime.ModelFileError):
        runtime.load(edited(lambda data: data["states"][0].update(size=size)))


@pytest.mark.parametrize("size", [10**30, -1, float("inf"), [1], True, {}, None], ids=str)
@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_shapes_are_checked(where: str, size: Any) -> None:
    for axis in range(3):
        with pytest.raises(runtime.ModelFileError):
            runtime.load(edited(lambda data, axis=axis: data[where][0]["shape"].__setitem__(axis, size)))  # type: ignore[misc]


def test_many_problems_are_a_short_message() -> None:
    with pytest.raises(runtime.ModelFileError) as caught:
        runtime.load(
            edited(lambda data: data.update(outputs=data["outputs"] * 50 + [{**data["outputs"][0], "name": "\x1b[2J"}]))
        )
    assert len(str(caught.value).splitlines()) <= 12
    assert "\x1b" not in str(caught.value)


GOLDEN = {
    "many arrays": golden(count=5, inputs={"x": array([1, 1 << 22, 1])}),
    "axes": golden(inputs={"x": array([26])}),
    "no axes": golden(inputs={"x": array([])}),
    "chunks": golden(kind="stream", chunks=[1, 10**9]),
    "no chunks": golden(kind="stream", chunks=[]),
    "chunks of nothing": golden(kind="stream", chunks=[0] * 200_000 + [2]),
    "negative": golden(lengths=[-1]),
    "tolerance": golden(tolerance=float("inf")),
    "shape": golden(inputs={"x": {**array([1]), "shape": [1 << 62, 1 << 62]}}),
    "infinite shape": golden(inputs={"x": {**array([1]), "shape": [float("inf")]}}),
    "bomb": golden(inputs={"x": array([1, 2, 13], zeros=1 << 26)}),
    "dtype": golden(inputs={"x": {**array([1, 2, 13]), "dtype": "O"}}),
    "every": golden(outputs={"y": {"of": [1, 2, 11], "every": 0, **array([22])}}),
    "a list": "[]",
    "a case that is none": golden(cases=[7]),
    "seed": golden(inputs={"x": {"seed": -1, "dtype": "float32", "shape": [1, 2, 13], "low": 0, "high": 1}}),
    "infinite seed": golden(
        inputs={"x": {"seed": float("inf"), "dtype": "f", "shape": [1, 2, 13], "low": 0, "high": 1}}
    ),
}


@pytest.mark.parametrize("what", GOLDEN)
def test_golden_cases_are_bounded(what: str) -> None:
    with pytest.raises(runtime.ModelFileError):
        runtime.verify(with_metadata(golden=GOLDEN[what]))


def test_a_golden_case_that_is_right_passes_and_the_limit_can_be_set() -> None:
    data = with_metadata(golden=golden())
    assert runtime.verify(data).passed
    assert runtime.verify(data, isolated=True) == runtime.verify(data)
    with pytest.raises(runtime.ModelFileError, match="golden_bytes"):
        runtime.verify(data, limits=runtime.Limits(golden_bytes=100))
    with pytest.raises(runtime.ModelFileError, match="golden_bytes"):
        Golden.from_json(golden(), 100)


def endless() -> bytes:
    """A model whose loop has no end in this world, with a golden case."""
    graph = causal_graph(Spec())
    for node in graph.node:
        if node.op_type == "Loop":
            node.input[0] = "for_ever"
            body = node.attribute[0].g
            for inner in body.node:
                if inner.op_type == "Gather":
                    inner.input[1] = "nought_t"
            body.node.insert(0, helper.make_node("Sub", ["t", "t"], ["nought_t"]))
    graph.initializer.append(numpy_helper.from_array(np.array(2**62), "for_ever"))
    return finish(graph, signature(Spec()), golden=golden())


def test_a_graph_without_end_is_ended() -> None:
    for limits, message in (
        (runtime.Limits(verify_s=6), "not done after 6 s"),
        (runtime.Limits(verify_bytes=1 << 20), "loading the file failed|ended with|more memory"),
    ):
        with pytest.raises(runtime.ModelFileError, match=message):
            runtime.verify(endless(), limits=limits, isolated=True)


@pytest.mark.parametrize("kind", ["pipe", "device", "zero", "folder", "giant", "socket", "nul"])
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "giant":
        path.touch()
        os.truncate(path, 1 << 42)
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    path = {"device": Path(os.devnull), "zero": Path("/dev/zero"), "nul": tmp_path / "a\0b"}.get(kind, path)
    start = time.process_time()
    for read in (runtime.load, runtime.verify, lambda where: runtime.load(where, states={})):
        with pytest.raises(runtime.ModelFileError):
            read(path)
    assert time.process_time() - start < 5


def test_tokenizers_that_panic_are_errors_of_ours() -> None:
    pytest.importorskip("tokenizers")
    text = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    broken = [text | {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}, text, 7, {}, [[]]]
    broken.append(text | {"added_tokens": [{"id": 2**32 - 1, "content": "<eos>", "special": True}]})
    pattern = {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}
    broken.append(text | {"pre_tokenizer": pattern})
    broken.append(text | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}})
    for one in broken:
        with pytest.raises(runtime.RnncoreError):
            Vocabulary.from_json(json.dumps(one)).encode("a")


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_printed(text: str) -> None:
    shown = printable(text)
    assert all(c.isprintable() or c == "\n" for c in shown)
    if text.isprintable():
        assert shown == text


def test_inspect_prints_no_control_characters(tmp_path: Path) -> None:
    bad = "\x1b[2J\x07\x9b31m\u202e[red]x"
    path = tmp_path / "m.onnx"
    report = {"cases": [{"kind": bad, "note": bad}], "versions": {bad: bad}, "seed": bad}
    path.write_bytes(
        with_metadata(
            form=bad,
            precision=bad,
            report=json.dumps(report),
            form_choices=json.dumps({bad: {"form": bad, "reason": bad}}),
        )
    )
    for arguments in (["inspect", str(path)], ["inspect", "--json", str(path)]):
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0, found.output
        assert not set(found.output) & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert "[red]" in found.output
    for wrong in ('{"cases": 7}', '{"cases": [7]}', '{"cases": [{"max_abs": "x"}]}', '{"versions": [], "cases": [{}]}'):
        path.write_bytes(with_metadata(report=wrong))
        found = CliRunner().invoke(app, ["inspect", str(path)])
        assert found.exit_code == 1 and "Traceback" not in found.output
        assert isinstance(found.exception, SystemExit)


@pytest.mark.parametrize("name", ["y\x1b[2J", "y\n\n"])
def test_names_in_errors_are_spelled_out(name: str) -> None:
    with pytest.raises(runtime.ModelFileError) as caught:
        runtime.load(edited(lambda data: data["outputs"][0].update(name=name)))
    assert "\x1b" not in str(caught.value)


def test_a_graph_with_names_that_are_no_text_is_refused() -> None:
    model = onnx.load_from_string(causal_file())
    data = model.SerializeToString().replace(b"by_time", b"by\xfftime")
    with pytest.raises(runtime.ModelFileError):
        runtime.load(data)
    foreign = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["x_name"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x_name", TensorProto.FLOAT, ["batch", "time", C])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "time", C])],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    ).SerializeToString()
    with pytest.raises(runtime.ModelFileError):
        runtime.load(foreign.replace(b"x_name", b"x\xffname"), states={})
