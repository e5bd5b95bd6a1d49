"""How much onnxruntime would compute in advance: told exactly where it is known, from above where not, and refused beyond."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

from rnncore.runtime.errors import ModelFileError, NotOnnxError
from rnncore.runtime.format.folding import check_functions, may_fold
from rnncore.runtime.format.limits import DEFAULT_LIMITS
from rnncore.runtime.format.protobuf import parse

UNLIMITED = 1 << 40


def folds(data: bytes, numbers: int = UNLIMITED, products: int = UNLIMITED) -> bool:
    limits = replace(DEFAULT_LIMITS, constant_numbers=numbers, constant_products=products)
    return may_fold(data, parse(data)[0], limits)


def least(data: bytes, what: str) -> int:
    """The least limit within which a graph may be folded."""
    low, high = 0, UNLIMITED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if folds(data, **{what: middle}) else (middle, high)
    return high


def graph(text: str, **constants: np.ndarray) -> bytes:
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    parsed = parser.parse_graph(f"g (float[n] x) => (float[n] y) {{ {text} }}")
    parsed.initializer.extend(tensors)
    made: bytes = helper.make_model(parsed).SerializeToString()
    return made


A, B, V = np.ones((40, 30), np.float32), np.ones((30, 50), np.float32), np.ones(30, np.float32)
GIVEN = {"a": A, "b": B, "v": V, "s": np.array([7, 9, 11]), "r": np.array([30, 40]), "k": np.array([1])}
FREE = 2 * sum(value.size for value in GIVEN.values())
"""What is no more than twice the weights is never too much."""

# nodes that make c: the numbers and the products that they take
COUNTED = {
    "Abs (a)": (1200, 1200),
    "Transpose (a)": (1200, 1200),
    "Reshape (a, r)": (1200, 1200),
    "Squeeze (a)": (1200, 1200),
    "Slice (a, k, k)": (1200, 1200),
    "ReduceSum (k)": (16, 1),
    "Concat <axis = 0> (a, a, v)": (2430, 0),
    "Add (a, v)": (1200, 1200),
    "Add (a, k)": (1200, 1200),
    "Where (k, v, a)": (1200, 1200),
    "MatMul (a, b)": (2000, 60_000),
    "MatMul (a, v)": (36_000, 36_000),
    "Gemm (a, b)": (1_800_000, 1_800_000),
    "Gather (a, s)": (3600, 3600),
    "ConstantOfShape (s)": (693, 693),
    "Expand (a, s)": (693 * 1200, 693 * 1200),
    "Tile (a, r)": (1200 * 1200, 1200 * 1200),
}


@pytest.mark.parametrize("node", COUNTED)
def test_each_operator_takes_what_it_makes(node: str) -> None:
    numbers, products = COUNTED[node]
    data = graph(" ".join([*(f"c{i} = {node}" for i in range(9)), "y = Identity (x)"]), **GIVEN)
    assert least(data, "products") == max(9 * products, 1)
    assert least(data, "numbers") == max(9 * numbers - FREE, 1)


# what is known of a result shows in the product with it
SHAPES = {
    "c = Abs (b)  d = MatMul (a, c)": 1500 + 60_000,
    "c = Transpose (a)  d = MatMul (a, c)": 1200 + 40 * 30 * 40,
    "c = Transpose <perm = [1, 0]> (a)  d = MatMul (a, c)": 1200 + 40 * 30 * 40,
    "c = Transpose <perm = [0, 1]> (a)  d = MatMul (c, b)": 1200 + 60_000,
    "c = Transpose <perm = [1, 1]> (a)  d = MatMul (a, c)": 1200 + 1200 * 1200,
    "c = Reshape (a, r)  d = MatMul (a, c)": 1200 + 40 * 30 * 40,
    "c = Reshape (a, whole)  d = MatMul (a, c)": 1200 + 1200 * 1200,
    "c = Squeeze (b)  d = MatMul (a, c)": 1500 + 1200 * 1500,
    "c = Add (a, v)  d = MatMul (c, b)": 1200 + 60_000,
    "c = Concat <axis = 0> (a, v)  d = MatMul (c, b)": 1230 * 1500,
    "c = Slice (a, k, k)  d = MatMul (c, b)": 1200 + 1200 * 1500,
    "c = MatMul (a, b)  d = MatMul (c, c)": 60_000 + 40 * 50 * 50,
    "c = Slice (a, k, k)  d = Add (c, v)  e = MatMul (c, b)": 1200 + 36_000 + 1200 * 1500,
}


@pytest.mark.parametrize("nodes", SHAPES)
def test_shapes_are_followed_as_far_as_they_are_easily_told(nodes: str) -> None:
    data = graph(f"{nodes}  y = Identity (x)", whole=np.array([-1]), **GIVEN)
    assert least(data, "products") == SHAPES[nodes]


def test_outputs_are_counted_each() -> None:
    data = graph("c, d, e = Split <axis = 0, num_outputs = 3> (a)  y = Identity (x)", a=A)
    assert least(data, "numbers") == 3 * A.size - 2 * A.size


@pytest.mark.parametrize(
    ("nodes", "numbers"),
    [
        ("c = Constant <value = float[3] {1, 2, 3}> ()  d = Tile (c, s)", 3 * 693),
        ("c = Constant <value_ints = [5, 6]> ()  d = Tile (c, s)", 16 * 693),
        ("c = Constant <value = int64[2] {50, 60}> ()  d = ConstantOfShape (c)", 3000),
        ("c = Constant <value = int64[2] {0, 60}> ()  d = ConstantOfShape (c)", 60),
        ("c = Constant <value = int64[2] {-1, 60}> ()  d = Expand (k, c)", 60),
        ("z = RandomNormal <shape = [999, 999]> ()", 0),
    ],
)
def test_constants_of_nodes_are_read(nodes: str, numbers: int) -> None:
    data = graph(f"{nodes}  y = Identity (x)", s=GIVEN["s"], k=GIVEN["k"])
    assert least(data, "products") == max(numbers, 1)


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "typed"])
@pytest.mark.parametrize("length", [15, 16, 17])
def test_only_short_constants_are_read_as_shapes(packed: bool, length: int) -> None:
    values = [2, *[1] * (length - 1)]
    tensor = helper.make_tensor("s", onnx.TensorProto.INT64, [length], values)
    if not packed:
        tensor = numpy_helper.from_array(np.array(values), "s")
    parsed = parser.parse_graph("g (float[n] x) => (float[n] y) { c = ConstantOfShape (s)  y = Identity (x) }")
    parsed.initializer.append(tensor)
    assert folds(helper.make_model(parsed).SerializeToString()) is (length <= 16)


@pytest.mark.parametrize(
    "nodes",
    [
        "c = Nothing (a)",
        "c = custom.Abs (a)",
        "c = ConstantOfShape (floats)",
        "c = Expand (a)",
        "c = Tile (a, floats)",
    ],
)
def test_what_nobody_can_tell_is_not_folded(nodes: str) -> None:
    data = graph(f"{nodes}  y = Identity (x)", floats=np.ones(3, np.float32), **GIVEN)
    assert not folds(data)


def test_what_depends_on_an_input_is_not_counted() -> None:
    data = graph("c = Nothing (x, a)  d = custom.Thing (c)  e = MatMul (d, a)  y = Identity (x)", **GIVEN)
    assert folds(data, 1, 1)
    replaceable = onnx.load_from_string(graph("c = MatMul (a, b)  y = Identity (x)", **GIVEN))
    replaceable.graph.input.append(helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [40, 30]))
    assert folds(replaceable.SerializeToString(), 1, 1)
    assert folds(helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString(), 1, 1)
    assert folds(onnx.ModelProto(ir_version=10).SerializeToString(), 1, 1)


def test_sparse_weights_count_as_what_they_hold() -> None:
    values = numpy_helper.from_array(np.ones(30, np.float32), "w")
    places = numpy_helper.from_array(np.arange(30), "w_places")
    parsed = parser.parse_graph("g (float[n] x) => (float[n] y) { c = Abs (w)  y = Identity (x) }")
    parsed.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1000]))
    data = helper.make_model(parsed).SerializeToString()
    assert least(data, "products") == 30


BRANCH = """
    go = Constant <value_int = 1> ()
    w = If (x) <then_branch = t () => (float[n] p) { q = MatMul (a, b)  p = Identity (q) },
                else_branch = f () => (float[n] r) { a = Identity (x)  r = MatMul (a, b) }>
    z = MatMul (w, a)  y = Identity (x)"""


def test_branches_are_counted_and_hide_names_further_out() -> None:
    """In the second branch a is an input's value, and what an If gives is never a constant."""
    data = graph(BRANCH, a=A, b=B)
    assert least(data, "products") == 60_000 + 2000


# --------------------------------------------------------------------------------------------------------- functions
def model(functions: dict[str, list[str]], main: list[str], inside: list[str] = ()) -> onnx.ModelProto:  # type: ignore[assignment]
    """Functions by name with what they call; the main graph calls ``main``, and ``inside`` in a branch."""
    made = [
        helper.make_function(
            "own",
            name,
            ["x"],
            ["y"],
            [helper.make_node(call, ["x"], ["y"], domain="own" if call in functions else "") for call in calls],
            [helper.make_opsetid("", 20)],
        )
        for name, calls in functions.items()
    ]
    nodes = [helper.make_node(call, ["x"], ["y"], domain="own" if call in functions else "") for call in main]
    if inside:
        calls = [helper.make_node(call, ["x"], ["y"], domain="own") for call in inside]
        branch = helper.make_graph(calls, "branch", [], [])
        nodes.append(helper.make_node("If", ["c"], ["y"], then_branch=branch))
    return helper.make_model(helper.make_graph(nodes, "g", [], []), functions=made)


def size_of(made: onnx.ModelProto) -> int:
    """The least limit of fields within which the functions of a model may be written out."""
    (message, *_) = parse(made.SerializeToString())
    return next(n for n in range(1, 200) if _within(message, n))


def _within(message: object, fields: int) -> bool:
    try:
        check_functions(message, replace(DEFAULT_LIMITS, fields=fields))  # type: ignore[arg-type]
    except ModelFileError as error:
        assert str(error) == "the functions in the file have more nodes, written out, than limits.fields allows"
        return False
    return True


@pytest.mark.parametrize(
    ("functions", "main", "inside", "nodes"),
    [
        ({}, ["Abs"] * 9, [], 1),
        ({"f": ["Abs", "Neg"]}, ["f", "f", "Abs"], [], 3 + 3 + 1),
        ({"f": ["Abs"] * 20}, [], [], 21),
        ({"f": ["g", "g", "Abs"], "g": ["Abs", "Neg"]}, ["f"], [], 1 + 3 + 3 + 1),
        ({"g": ["Abs", "Neg"], "f": ["g", "g", "Abs"]}, ["f", "g"], [], 8 + 3),
        ({"f": ["Abs"] * 4}, ["Abs"], ["f", "f"], 1 + 1 + 5 + 5),
        ({"a": ["b", "b"], "b": ["c", "c"], "c": ["Abs", "Abs"]}, ["a"], [], 15),
    ],
)
def test_functions_are_as_long_as_they_are_written_out(
    functions: dict[str, list[str]], main: list[str], inside: list[str], nodes: int
) -> None:
    assert size_of(model(functions, main, inside)) == nodes


@pytest.mark.parametrize("functions", [{"f": ["f"]}, {"f": ["Abs", "g"], "g": ["h"], "h": ["f"]}])
def test_a_function_that_calls_itself_is_refused(functions: dict[str, list[str]]) -> None:
    (message, *_) = parse(model(functions, ["Abs"]).SerializeToString())
    with pytest.raises(NotOnnxError, match=r"^the function '[fgh]' in the file calls itself$"):
        check_functions(message, DEFAULT_LIMITS)


def test_functions_without_a_domain_are_those_of_onnx() -> None:
    """A name alone is no function: it must be of the domain that is called."""
    made = model({"Abs2": ["Abs"] * 30}, ["Abs2"])
    del made.functions[0].node[10:]
    made.functions[0].domain = ""
    made.graph.node[0].domain = "other"
    assert size_of(made) == 11
    made.functions[0].ClearField("domain")
    made.graph.node[0].ClearField("domain")
    assert size_of(made) == 11
    made.graph.node.extend([made.graph.node[0]] * 2)
    assert size_of(made) == 33
