"""Inputs that may be left out: the runtime fills them in, refuses what is out of range, and reads files of format 1."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from rnncore import runtime
from rnncore.runtime import InputError, LanguageModel, ModelFileError, Signature, TensorSpec, TextGenerator, Translator
from rnncore.runtime.format.options import Option
from tests.runtime.files import finish
from tests.tolerances import fixed

FORMAT_1 = Path(__file__).parent / "format1"
GAIN = Option("gain", 2.0, above=0.0, maximum=8.0)
SHIFT = Option("shift", 0.0)


def sound() -> Signature:
    """y = x * gain + shift, where each row may have a gain and a shift of its own."""
    return Signature(
        (
            TensorSpec("x", "float32", ("batch", "time", 3)),
            TensorSpec("gain", "float64", ("batch",)),
            TensorSpec("shift", "float32", ("batch", "places", 3)),
        ),
        (TensorSpec("y", "float32", ("batch", "time", 3)),),
        causal=True,
        options=(GAIN, SHIFT),
    )


def file(signature: Signature) -> bytes:
    values = [
        helper.make_tensor_value_info(port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), port.shape)
        for port in (*sound().inputs, *sound().outputs)
    ]
    nodes = [
        helper.make_node("Cast", ["gain"], ["gain32"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["axes"], value_ints=[1, 2]),
        helper.make_node("Unsqueeze", ["gain32", "axes"], ["gain3"]),
        helper.make_node("Mul", ["x", "gain3"], ["scaled"]),
        helper.make_node("Constant", [], ["axis"], value_ints=[1]),
        helper.make_node("ReduceSum", ["shift", "axis"], ["shifts"], keepdims=1),
        helper.make_node("Add", ["scaled", "shifts"], ["y"]),
    ]
    return finish(helper.make_graph(nodes, "scaled", values[:3], values[3:]), signature)


@cache
def model() -> runtime.Model:
    return runtime.load(file(sound()))


floats = st.floats(-4, 4, width=32)


@given(st.integers(1, 4), st.integers(0, 5), st.data())
def test_what_is_left_out_is_its_default(rows: int, steps: int, data: st.DataObject) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, steps, 3)).astype(np.float32)
    gain = data.draw(st.none() | st.lists(st.floats(0.5, 8.0), min_size=rows, max_size=rows) | st.floats(0.5, 8.0))
    shift = data.draw(st.none() | st.just(np.full((rows, 2, 3), 0.25, np.float32)))
    chosen = {name: value for name, value in (("gain", gain), ("shift", shift)) if value is not None}
    each = np.broadcast_to(np.float32(2.0 if gain is None else gain), rows)
    expected = x * each[:, None, None] + (0.0 if shift is None else np.float32(0.5))
    np.testing.assert_array_equal(model().run(x, **chosen), expected)
    ragged = model().run([x[i, : i + 1] for i in range(rows)], **chosen)
    for i, own in enumerate(ragged):
        np.testing.assert_array_equal(own, expected[i, : i + 1])
    with model().stream() as stream:
        own = {name: value if np.ndim(value) == 0 else value[0] for name, value in chosen.items()}
        np.testing.assert_array_equal(stream.push(x[0], **own), expected[0])
        np.testing.assert_array_equal(stream.push(x[0, :1], **own), expected[0, :1])
    first = next(model().run_iter([{"x": x[0], **own}]))
    np.testing.assert_array_equal(first, expected[0])


def test_a_number_by_position_is_for_all_rows() -> None:
    x = np.ones((2, 1, 3), np.float32)
    for number in (3.0, 3, np.float32(3), np.int64(3)):
        np.testing.assert_array_equal(model().run(x, number), 3 * x)
    np.testing.assert_array_equal(model().run(x, np.array([3.0, 4.0]))[:, 0, 0], [3.0, 4.0])


@pytest.mark.parametrize("gain", [0.0, -1.0, 8.5, float("nan"), float("inf"), [1.0, 9.0], np.array([0.0, 1.0])])
def test_numbers_out_of_range_are_refused_everywhere(gain: object) -> None:
    x = np.ones((2, 1, 3), np.float32)
    message = r"input 'gain'.* holds .*, expected above 0 and at most 8, or nothing at all for 2"
    for wrong in (x, list(x)):
        with pytest.raises(InputError, match=message):
            model().run(wrong, gain=gain)
    if np.ndim(gain) == 0:  # type: ignore[arg-type]
        with model().stream() as stream, pytest.raises(InputError, match=message):
            stream.push(x[0], gain=gain)


def test_one_number_too_few_is_named() -> None:
    with pytest.raises(InputError, match="'x' has 2, 'gain' has 3"):
        model().run(np.ones((2, 1, 3), np.float32), gain=[1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="input 'x' is missing"):
        model().run(gain=1.0)
    with pytest.raises(InputError, match="'gain' is a str"):
        model().run(np.ones((2, 1, 3), np.float32), gain="loud")


def test_no_host_needs_to_look_for_hidden_inputs() -> None:
    session = onnxruntime.InferenceSession(file(sound()), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["x", "gain", "shift"]
    assert session.get_overridable_initializers() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((Option("z", 1.0),), "an option 'z', which is no input"),
        ((Option("x", 1.0), GAIN, SHIFT), "option 'x' has a time axis"),
        ((replace(GAIN, default=9.0), SHIFT), "option 'gain' is 9.0 by default, expected above 0 and at most 8"),
        ((replace(SHIFT, default=float("nan")), GAIN), "option 'shift' is nan by default"),
    ],
)
def test_options_that_make_no_sense_are_named(options: tuple[Option, ...], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        runtime.load(file(replace(sound(), options=options)))


@pytest.mark.parametrize("options", [3, [3], [{"name": "gain"}], [{"name": "gain", "default": "2"}], {"gain": 2}])
def test_options_that_are_none_are_no_signature(options: object) -> None:
    text = json.dumps({**json.loads(sound().to_json()), "options": options})
    with pytest.raises(ModelFileError, match=r"rnncore\.signature in the file cannot be read"):
        Signature.from_json(text)


def test_signatures_keep_their_options() -> None:
    assert Signature.from_json(sound().to_json()) == sound()
    assert json.loads(sound().to_json())["options"][0] == asdict(GAIN)


# ---------------------------------------------------------------------------------------------------------- format 1
def test_files_of_format_1_answer_as_they_did() -> None:
    """Their options, and the indices that are asked for, are inputs with defaults in the graph; made by rnncore of then."""
    answers = json.loads((FORMAT_1 / "answers.json").read_text())
    for name in ("language_model", "generator", "translator"):
        data = onnx.load(FORMAT_1 / f"{name}.onnx")
        assert {value.name for value in data.graph.input} & {value.name for value in data.graph.initializer}
        assert runtime.verify(FORMAT_1 / f"{name}.onnx").passed
    language_model = LanguageModel.load(FORMAT_1 / "language_model.onnx")
    assert language_model.score("abc de cab") == pytest.approx(answers["score"], abs=fixed("float32"))
    scores = [score.log_prob for score in language_model.token_scores("dead")]
    assert scores == pytest.approx(answers["token_scores"], abs=fixed("float32"))
    generator = TextGenerator.load(FORMAT_1 / "generator.onnx")
    written = generator.generate(["a", "cab ", ""], max_tokens=12, temperature=0.8, top_p=0.9, seed=3)
    assert written == answers["generate"]
    translator = Translator.load(FORMAT_1 / "translator.onnx")
    assert translator.translate(["abc", "de"], max_tokens=8) == answers["translate"]
    for one_call, name in ((True, "beams"), (False, "stepwise")):
        search = {"beam": 3, "max_tokens": 6, "length_penalty": 0.6, "one_call": one_call}
        (found,) = translator.translate_ids([[1, 2, 3]], **search)
        assert [one.ids.tolist() for one in found] == [ids for ids, _ in answers[name]]
        assert [one.score for one in found] == pytest.approx(
            [score for _, score in answers[name]], abs=fixed("float32")
        )
