"""Our reader of ONNX files sees what onnx's own sees, and refuses what is written in another way than onnx writes it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rnncore import runtime
from rnncore.runtime.format.limits import DEFAULT_LIMITS, Limits
from rnncore.runtime.format.onnx_schema import BYTES, RULES, VARINT
from rnncore.runtime.format.protobuf import CutShortError, MalformedError, Message, field, fields, integers, parse
from rnncore.runtime.format.structure import Structure
from tests.runtime.files import causal_file
from tests.runtime.test_weights_files import FEATURES, PLACES, model_reading

KINDS = {
    FieldDescriptor.TYPE_STRING: "s",
    FieldDescriptor.TYPE_BYTES: "b",
    FieldDescriptor.TYPE_MESSAGE: "m",
    FieldDescriptor.TYPE_FLOAT: "f",
    FieldDescriptor.TYPE_DOUBLE: "d",
}


def varint(value: int, *, longer: int = 0) -> bytes:
    """``value``, in ``longer`` bytes more than it needs."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    parts[-1] |= 0x80 if longer else 0
    return bytes([*parts, *([0x80] * (longer - 1)), *([0] * (longer > 0))])


def test_the_schema_is_that_of_onnx() -> None:
    todo, seen = [onnx.ModelProto.DESCRIPTOR], set()
    while todo:
        message = todo.pop()
        name = message.full_name.removeprefix("onnx.")
        if name in seen:
            continue
        seen.add(name)
        ours = {
            rule.number: (rule.kind, rule.repeated, rule.message) for rule in RULES[name].values() if not rule.packed
        }
        theirs = {}
        for each in message.fields:
            inner = "" if each.message_type is None else each.message_type.full_name.removeprefix("onnx.")
            theirs[each.number] = (KINDS.get(each.type, "i"), each.is_repeated, inner)
            todo += [] if each.message_type is None else [each.message_type]
        assert ours == theirs, name
    assert seen == set(RULES)


def same(data: bytes, ours: Message, theirs: object) -> None:
    """Every field of both, all the way down."""
    known = {d.number: (d, value) for d, value in theirs.ListFields()}  # type: ignore[attr-defined]
    assert {number for number in ours.values if ours.all(number)} >= set(known)
    for number, (descriptor, value) in known.items():
        values = list(value) if descriptor.is_repeated else [value]
        kind = KINDS.get(descriptor.type, "i")
        if kind == "m":
            for mine, other in zip(ours.all(number), values, strict=True):
                same(data, mine, other)
        elif kind == "b":
            assert [data[a:b] for a, b in ours.all(number)] == values
        elif kind == "i":
            assert integers(data, ours, number) == values
        elif kind == "s":
            assert ours.all(number) == values


@pytest.mark.parametrize(
    "data", [causal_file(), *(model_reading("w", where) for where in PLACES)], ids=["causal", *PLACES]
)
def test_all_values_are_those_that_onnx_reads(data: bytes) -> None:
    same(data, parse(data)[0], onnx.load_from_string(data))


@given(values=st.lists(st.integers(-(2**63), 2**63 - 1)), packed=st.booleans())
def test_integers_packed_or_not(values: list[int], packed: bool) -> None:
    tag = (2 << 3 | BYTES) if packed else (8 << 3 | VARINT)
    numbers = [varint(value % 2**64) for value in values]
    if packed:
        content = field(8, b"".join(numbers))
    else:
        content = b"".join(bytes([tag]) + number for number in numbers)
    graph = field(1, field(5, field(1, b"perm") + content))
    (attribute,) = [m for m in parse(field(7, graph)) if m.kind == "AttributeProto"]
    assert integers(field(7, graph), attribute, 8) == values


def broken(how: str) -> bytes:
    """A small model in which one thing is written in another way."""
    location = field(1, b"location") + field(2, b"w")
    hidden = bytes([2 << 3 | 1]) + b"../../x\0"
    entries = {
        "wire type": [field(1, b"location") + hidden + field(2, b"w")],
        "group": [location + bytes([3 << 3 | 3, 3 << 3 | 4])],
        "twice": [location + field(2, b"../x")],
        "two entries": [location, field(1, b"location") + field(2, b"../x")],
        "unknown entry": [location, field(1, b"basepath") + field(2, b"..")],
        "unknown field": [location + field(3, b"x")],
        "length": [location, field(1, b"length") + field(2, b"8")],
        "offset": [location, field(1, b"offset") + field(2, b"-8")],
        "no text": [field(1, b"location") + field(2, b"\xff")],
    }.get(how, [location])
    tensor = field(8, b"W") + bytes([1 << 3]) + varint(4, longer=how == "overlong") + bytes([2 << 3, 1])
    tensor += bytes([14 << 3, 0 if how == "not external" else 1]) + b"".join(field(13, entry) for entry in entries)
    graph = field(5, tensor)
    if how == "two graphs":
        return bytes([8, 10]) + field(7, graph) + field(7, b"")
    return bytes([8, 10]) + field(7, graph)


REASONS = {
    "wire type": "field 2 of a StringStringEntryProto has wire type 1",
    "group": "which is not known here",
    "twice": "field 2 of a StringStringEntryProto is there twice",
    "two entries": "'location' of external data of the tensor 'W' is there twice",
    "unknown entry": "'basepath' of external data of the tensor 'W' is unknown",
    "unknown field": "a StringStringEntryProto has a field 3 at byte",
    "length": "has 8 bytes in another file, its shape takes 16",
    "offset": "begin at '-8', expected a number",
    "no text": "can't decode byte 0xff",
    "overlong": "is written in more bytes than it needs",
    "not external": "says that its data are here",
    "two graphs": "field 7 of a ModelProto is there twice",
}


@pytest.mark.parametrize("how", REASONS)
def test_what_is_written_in_another_way_is_refused(how: str) -> None:
    assert Structure.of(broken("right"), DEFAULT_LIMITS).outside[0].location == "w"
    with pytest.raises(runtime.NotOnnxError) as caught:
        Structure.of(broken(how), DEFAULT_LIMITS)
    assert REASONS[how] in str(caught.value)
    with pytest.raises(runtime.ModelFileError):
        runtime.load(broken(how), states={})


def test_a_file_that_could_be_of_another_format_is_run_as_it_was_checked() -> None:
    """onnxruntime takes a model whose bytes 4 to 7 are "ORTM" for one of its own format unless it is told."""
    data = model_reading("w").replace(b"", b"", 0)
    model = onnx.load_from_string(data)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.eye(FEATURES, dtype=np.float32) * 2, "W"))
    head = field(2, b"ORTM")  # the producer's name, at byte 2 after the version
    body = model.SerializeToString()
    assert body[:2] == bytes([8, 10])
    disguised = body[:2] + head + body[2:]
    assert disguised[4:8] == b"ORTM"
    x = np.random.default_rng(0).standard_normal((2, 3, FEATURES)).astype(np.float32)
    np.testing.assert_array_equal(runtime.load(disguised, states={}).run(x), x * 2)


@pytest.mark.parametrize("where", PLACES)
def test_weights_are_those_beside_the_model_wherever_the_graph_names_them(
    where: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime reads tensors of branches from a folder only: that of a working directory must not be it."""
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "w").write_bytes(np.full((FEATURES, FEATURES), 7, np.float32).tobytes())
    (folder / "w").write_bytes((np.eye(FEATURES, dtype=np.float32) * 2).tobytes())
    (folder / "m.onnx").write_bytes(model_reading("w", where))
    monkeypatch.chdir(folder / "elsewhere")
    model = runtime.load(folder / "m.onnx", states={})
    x = np.random.default_rng(0).standard_normal((2, 3, FEATURES)).astype(np.float32)
    for damage in (b"", bytes(FEATURES * FEATURES * 4), None):
        np.testing.assert_array_equal(model.run(x), x * 2)
        if damage is None:
            (folder / "w").unlink()
        else:
            (folder / "w").write_bytes(damage)
    np.testing.assert_array_equal(model.run(x), x * 2)


def chain(nodes: list[onnx.NodeProto], tensors: list[TensorProto]) -> bytes:
    info = helper.make_tensor_value_info
    shape = ["batch", "time", FEATURES]
    nodes = [*nodes, helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, shape)], [info("y", TensorProto.FLOAT, shape)], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@pytest.mark.parametrize("how", ["products", "doubling", "filled", "expanded", "tiled", "range", "shape unknown"])
def test_constants_that_would_grow_are_not_computed_in_advance(how: str) -> None:
    node, tensor = helper.make_node, numpy_helper.from_array
    tensors = [tensor(np.ones((100, 100), np.float32), "c0"), tensor(np.array([9999, 9999]), "huge")]
    tensors.append(tensor(np.array([4000, 4000], np.int32), "odd"))
    nodes = {
        "products": [node("MatMul", [f"c{i}", "c0"], [f"c{i + 1}"]) for i in range(1100)],
        "doubling": [node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(20)],
        "filled": [node("ConstantOfShape", ["huge"], ["c1"])],
        "expanded": [node("Expand", ["c0", "huge"], ["c1"])],
        "tiled": [node("Tile", ["c0", "huge"], ["c1"])],
        "range": [node("Range", ["a", "b", "c"], ["c1"])],
        "shape unknown": [
            node("Cast", ["odd"], ["long"], to=TensorProto.INT64),
            node("ConstantOfShape", ["long"], ["c1"]),
        ],
    }[how]
    if how == "range":
        tensors += [tensor(np.array(value), name) for name, value in (("a", 0), ("b", 10**9), ("c", 1))]
    data = chain(nodes, tensors)
    assert not Structure.of(data, DEFAULT_LIMITS).foldable
    few = Limits(constant_numbers=2**40, constant_products=2**50)
    assert Structure.of(data, few).foldable is (how not in ("range", "shape unknown"))


def test_a_graph_of_many_products_is_opened_and_runs() -> None:
    nodes = [helper.make_node("MatMul", [f"c{i}", "c0"], [f"c{i + 1}"]) for i in range(30)]
    data = chain(nodes, [numpy_helper.from_array(np.ones((9, 9), np.float32), "c0")])
    x = np.ones((1, 2, FEATURES), np.float32)
    for limits in (DEFAULT_LIMITS, Limits(constant_products=100)):
        np.testing.assert_array_equal(runtime.load(data, states={}, limits=limits).run(x), x)


def test_ordinary_constants_are_computed_in_advance() -> None:
    assert Structure.of(causal_file(), DEFAULT_LIMITS).foldable
    node, tensor = helper.make_node, numpy_helper.from_array
    nodes = [
        node("Transpose", ["c0"], ["t"]),
        node("Mul", ["c0", "row"], ["scaled"]),
        node("MatMul", ["t", "c0"], ["m"]),
        node("Concat", ["m", "scaled"], ["both"], axis=0),
        node("ConstantOfShape", ["small"], ["zeros"]),
    ]
    tensors = [tensor(np.ones((300, 300), np.float32), "c0"), tensor(np.ones(300, np.float32), "row")]
    data = chain(nodes, [*tensors, tensor(np.array([30, 30]), "small")])
    assert Structure.of(data, DEFAULT_LIMITS).foldable


@pytest.mark.parametrize("limit", ["fields", "graph_depth", "file_bytes"])
def test_each_limit_can_be_lowered_and_raised(limit: str) -> None:
    data = model_reading("w", "branch") if limit == "graph_depth" else causal_file()
    states: dict[str, object] = {"states": {}} if limit == "graph_depth" else {}
    with pytest.raises(runtime.ModelFileError, match=limit):
        runtime.load(data, limits=Limits(**{limit: 1}), **states)  # type: ignore[arg-type]


@pytest.mark.parametrize("calls", ["doubling", "itself", "each other"])
def test_functions_that_grow_are_refused(calls: str) -> None:
    node = helper.make_node
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]

    def function(name: str, callee: str) -> onnx.FunctionProto:
        nodes = [node(callee, ["a"], ["b"], domain="own" if callee[0] == "f" else ""), node("Identity", ["b"], ["c"])]
        if calls == "doubling" and callee[0] == "f":
            nodes[1] = node(callee, ["b"], ["c"], domain="own")
        return helper.make_function("own", name, ["a"], ["c"], nodes, opsets)

    callees = {"doubling": lambda i: f"f{i - 1}", "itself": lambda i: f"f{i}", "each other": lambda i: f"f{29 - i}"}
    functions = [function(f"f{i}", callees[calls](i) if calls != "doubling" or i else "Identity") for i in range(30)]
    model = onnx.load_from_string(chain([node("f29", ["x"], ["z"], domain="own")], []))
    model.functions.extend(functions)
    model.opset_import.append(opsets[1])
    with pytest.raises(runtime.ModelFileError, match="written out" if calls == "doubling" else "calls itself"):
        runtime.load(model.SerializeToString(), states={})


def test_a_chain_of_functions_is_no_problem() -> None:
    node = helper.make_node
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = onnx.load_from_string(chain([node("f19", ["x"], ["z"], domain="own")], []))
    for i in range(20):
        callee = node(f"f{i - 1}", ["a"], ["c"], domain="own") if i else node("Tanh", ["a"], ["c"])
        model.functions.append(helper.make_function("own", f"f{i}", ["a"], ["c"], [callee], opsets))
    model.opset_import.append(opsets[1])
    x = np.ones((1, 2, FEATURES), np.float32)
    np.testing.assert_array_equal(runtime.load(model.SerializeToString(), states={}).run(x), x)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0a\x05ab", "a field ends at byte 7, the file has 4"),
        (b"\x0b", "byte 1 begins a field of wire type 3"),
        (b"\x02\x00", "byte 2 belongs to a field of number 0"),
    ],
)
def test_a_message_that_cannot_be_walked_says_where(data: bytes, message: str) -> None:
    with pytest.raises((CutShortError, MalformedError), match=message):
        list(fields(data, 0, len(data)))
