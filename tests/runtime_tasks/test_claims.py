"""A file whose numbers are not what its task says is refused when its class is made: planted files of every task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rnncore import runtime
from rnncore.runtime import ModelFileError
from rnncore.runtime.format.container import stamp
from rnncore.runtime.format.signature import BLANK_FINGERPRINT, Signature, TensorSpec
from rnncore.runtime.text.log_probs import log_probability_problem
from tests.runtime.files import finish

FEATURES, CLASSES = 5, 3
WEIGHTS = np.random.default_rng(7).normal(0, 2, (FEATURES, CLASSES)).astype(np.float32)
LABELS = ["a", "b", "c"]
BY_STEP, WHOLE, ONE = ("batch", "time", CLASSES), ("batch", CLASSES), ("batch",)


def file(task: str, axes: tuple[Any, ...], operators: str, name: str = "y", **metadata: str) -> bytes:
    """x [batch, time, features] times a matrix, through the operators named one after another."""
    x, y = TensorSpec("x", "float32", ("batch", "time", FEATURES)), TensorSpec(name, "float32", axes)
    nodes, value = [helper.make_node("MatMul", ["x", "W"], ["0"])], "0"
    for number, operator in enumerate(operators.split(), 1):
        inputs, attributes = _arguments(operator)
        operator = "Sub" if operator == "LessMost" else operator
        nodes.append(helper.make_node(operator, [value, *inputs], [str(number)], **attributes))
        if inputs == ["most"]:
            nodes.insert(-1, helper.make_node("ReduceMax", [value, "last"], ["most"]))
        value = str(number)
    nodes.append(helper.make_node("Identity", [value], [name]))
    constants = {"W": WEIGHTS, "steps": np.array([1]), "last": np.array([-1]), "two": np.float32(2)}
    tensors = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    ports = [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, list(spec.shape)) for spec in (x, y)]
    graph: onnx.GraphProto = helper.make_graph(nodes, task, ports[:1], ports[1:], tensors)
    return finish(graph, Signature((x,), (y,), not_causal_because="it is not tried"), task=task, **metadata)


def _arguments(operator: str) -> tuple[list[str], dict[str, Any]]:
    """Further inputs and attributes."""
    return {
        "ReduceMean": (["steps"], {"keepdims": 0}),
        "ReduceMax": (["last"], {"keepdims": 0}),
        "LessMost": (["most"], {}),
        "Mul": (["two"], {}),
        "LogSoftmax": ([], {"axis": -1}),
        "LpNormalization": ([], {"axis": -1, "p": 2}),
    }.get(operator, ([], {}))


LABELLED = {"labels": json.dumps(LABELS)}
RECOGNISED = {"labels": json.dumps(LABELS[1:])}
RATED = {"bounds": "[0, 1]"}
RIGHT: dict[str, Callable[[], bytes]] = {
    "tagger": lambda: file("tagger", BY_STEP, "LogSoftmax", **LABELLED),
    "tagger, crf": lambda: file("tagger", BY_STEP, "LessMost", "scores", **LABELLED),
    "classifier": lambda: file("classifier", WHOLE, "ReduceMean LogSoftmax", **LABELLED),
    "recogniser": lambda: file("recogniser", BY_STEP, "LogSoftmax", **RECOGNISED),
    "embedder": lambda: file("embedder", WHOLE, "ReduceMean LpNormalization"),
    "generator": lambda: file("generator", BY_STEP, "LogSoftmax", eos="0"),
    "rater": lambda: file("rater", ONE, "ReduceMean ReduceMax Sigmoid", **RATED),
    "rater of before": lambda: file("rater", ONE, "ReduceMean ReduceMax"),
}
PLANTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "tagger: scores": (lambda: file("tagger", BY_STEP, "", **LABELLED), "not log-probabilities"),
    "tagger: probabilities": (lambda: file("tagger", BY_STEP, "Softmax", **LABELLED), "not log-probabilities"),
    "tagger, crf: scores": (lambda: file("tagger", BY_STEP, "", "scores", **LABELLED), "expected 0"),
    "classifier: mean of logarithms": (
        lambda: file("classifier", WHOLE, "LogSoftmax ReduceMean", **LABELLED),
        "not log-probabilities",
    ),
    "recogniser: twice the logarithms": (
        lambda: file("recogniser", BY_STEP, "LogSoftmax Mul", **RECOGNISED),
        "not log-probabilities",
    ),
    "embedder: any length": (lambda: file("embedder", WHOLE, "ReduceMean"), "not vectors of length 1"),
    "embedder: mean of unit vectors": (
        lambda: file("embedder", WHOLE, "LpNormalization ReduceMean"),
        "not vectors of length 1",
    ),
    "generator: scores": (lambda: file("generator", BY_STEP, "", eos="0"), "not log-probabilities"),
    "rater: twice too much": (
        lambda: file("rater", ONE, "ReduceMean ReduceMax Sigmoid Mul Mul", **RATED),
        "not ratings from 0 to 1",
    ),
    "rater: no number": (lambda: file("rater", ONE, "ReduceMean ReduceMax Neg Exp Neg Log"), "not ratings"),
    "rater: bounds of nothing": (
        lambda: file("rater", ONE, "ReduceMean ReduceMax Sigmoid", bounds="[1, 0]"),
        "the lower one first",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_file_that_is_what_it_says_is_opened(name: str) -> None:
    kind = name.partition(",")[0].partition(" ")[0]
    assert type(runtime.open(RIGHT[name]())).__name__.lower() == kind


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_file_is_refused_by_what_is_wrong_with_its_numbers(name: str) -> None:
    make, expected = PLANTED[name]
    with pytest.raises(ModelFileError, match=expected):
        runtime.open(make())


def test_a_translator_whose_next_log_probabilities_are_none_is_refused() -> None:
    model = onnx.load(Path(__file__).parents[1] / "runtime" / "format1" / "translator.onnx")
    assert type(runtime.open(model.SerializeToString())) is runtime.Translator
    (choices,) = (node for node in model.graph.node if "next_log_probs" in node.output)
    choices.output[:] = ["plain" if name == "next_log_probs" else name for name in choices.output]
    model.graph.node.append(helper.make_node("Add", ["plain", "plain"], ["next_log_probs"]))
    (seal,) = (entry for entry in model.metadata_props if entry.key == "rnncore.fingerprint")
    seal.value = BLANK_FINGERPRINT
    with pytest.raises(ModelFileError, match="next_log_probs are not log-probabilities"):
        runtime.open(stamp(model.SerializeToString()))


def test_bounds_are_read() -> None:
    assert runtime.open(RIGHT["rater"]()).bounds == (0.0, 1.0)
    assert runtime.open(RIGHT["rater of before"]()).bounds == (-np.inf, np.inf)


def test_the_worst_sum_is_named() -> None:
    assert log_probability_problem(np.log([[0.5, 0.5], [0.25, 0.75]])) == ""
    assert log_probability_problem(np.zeros((0, 4))) == ""
    assert "exp(0.693)" in log_probability_problem([[np.log(0.5)] * 2, [0.0, 0.0]])
    assert "exp(nan)" in log_probability_problem([[np.nan, 0.0], [9.0, 9.0]])
    assert "exp(-inf)" in log_probability_problem([[-np.inf, -np.inf]])
