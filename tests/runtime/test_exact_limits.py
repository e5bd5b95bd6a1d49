"""Each limit is taken as it stands: what has exactly so much of something passes, one more is refused by name."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rnncore import runtime
from rnncore.runtime import Limits, ModelFileError
from rnncore.runtime.errors import InputError, NotOnnxError
from rnncore.runtime.format.container import field, metadata_of, replace_metadata
from rnncore.runtime.format.limits import DEFAULT_LIMITS
from rnncore.runtime.format.metadata_limits import check_metadata, check_states
from rnncore.runtime.format.protobuf import parse
from rnncore.runtime.format.reading import Stamp, read_array, read_file, size_of
from rnncore.runtime.format.signature import Signature, StateSpec, TensorSpec
from rnncore.runtime.format.tensors import check_tensors

READ = {"bytes": read_file, "array": lambda *a: read_array(*a).tobytes()}


def model(*tensors: onnx.TensorProto, depth: int = 0) -> bytes:
    """A graph with these weights, in ``depth`` branches of branches."""
    graph: onnx.GraphProto = helper.make_graph([], "inner", [], [], list(tensors))
    for _ in range(depth):
        branch = helper.make_node("If", ["c"], ["y"], then_branch=graph)
        graph = helper.make_graph([branch], "outer", [], [])
    made: bytes = helper.make_model(graph).SerializeToString()
    return made


def weight(
    dtype: int = TensorProto.FLOAT, dims: tuple[int, ...] = (2, 3), raw: bytes | None = None
) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=dtype, dims=dims)
    if raw is not None:
        tensor.raw_data = raw
    return tensor


def check(data: bytes) -> None:
    check_tensors(data, parse(data), DEFAULT_LIMITS)


def test_fields_and_graphs_are_counted_exactly() -> None:
    data = model(weight(raw=bytes(24)), depth=3)
    count = next(n for n in range(1, 999) if _parses(data, replace(DEFAULT_LIMITS, fields=n)))
    with pytest.raises(ModelFileError, match=rf"more than {count - 1} fields \(limits.fields\)"):
        parse(data, replace(DEFAULT_LIMITS, fields=count - 1))
    more = model(weight(raw=bytes(24)), weight(raw=bytes(24)), depth=3)  # a message in the graph and the tensor's five
    assert not _parses(more, replace(DEFAULT_LIMITS, fields=count + 5))
    assert _parses(more, replace(DEFAULT_LIMITS, fields=count + 6))
    assert _parses(data, replace(DEFAULT_LIMITS, graph_depth=4))
    with pytest.raises(ModelFileError, match=r"more than 3 graphs lie in each other \(limits.graph_depth\)"):
        parse(data, replace(DEFAULT_LIMITS, graph_depth=3))


def test_messages_in_each_other_are_counted_exactly() -> None:
    def sequences_of_sequences(count: int) -> bytes:
        kind = onnx.TypeProto()
        for _ in range(count):
            outer = onnx.TypeProto()
            outer.sequence_type.elem_type.CopyFrom(kind)
            kind = outer
        info = onnx.ValueInfoProto(name="x", type=kind)
        made: bytes = helper.make_model(helper.make_graph([], "g", [info], [])).SerializeToString()
        return made

    assert max(message.depth for message in parse(sequences_of_sequences(48))) == 100
    with pytest.raises(NotOnnxError, match=r"more than 100 messages lie in each other; copy or export it again$"):
        parse(sequences_of_sequences(49))


@pytest.mark.parametrize("dims", [field(1, b"\2\3"), b"\x08\2\x08\3", b"\x08\2" + field(1, b"\3")])
def test_sizes_are_read_packed_and_not(dims: bytes) -> None:
    tensor = dims + b"\x10\1" + field(8, b"w") + field(9, bytes(24))
    check(field(7, field(5, tensor)))
    with pytest.raises(NotOnnxError, match="w' has 6 numbers by its shape, but 25 bytes"):
        check(field(7, field(5, tensor.replace(field(9, bytes(24)), field(9, bytes(25))))))
    sparse = field(1, tensor) + dims.replace(b"\x08", b"\x18").replace(b"\n", b"\x1a")
    data = field(7, field(15, sparse))
    check_tensors(data, parse(data), replace(DEFAULT_LIMITS, constant_numbers=6))
    with pytest.raises(ModelFileError, match=r"more numbers in full than limits.constant_numbers allows"):
        check_tensors(data, parse(data), replace(DEFAULT_LIMITS, constant_numbers=5))


def test_metadata_are_replaced_wherever_they_are() -> None:
    """And nothing else is: not even what comes before the first of them, or lies between."""
    one, two, other = (field(14, field(1, key) + field(2, b"v")) for key in (b"a", b"b", b"c"))
    new = field(14, field(1, b"a") + field(2, "ü".encode())) + field(14, field(1, b"b") + field(2, b""))
    graph, version = field(7, b""), b"\x08\x0a"
    for parts in ([one, graph, two, other], [version, one, two, graph], [graph, two, version, other, one]):
        kept = b"".join(part for part in parts if part not in (one, two))
        assert replace_metadata(b"".join(parts), {"a": "ü", "b": ""}) == kept + new


def _parses(data: bytes, limits: Limits) -> bool:
    try:
        return bool(parse(data, limits))
    except ModelFileError:
        return False


def test_states_are_counted_together() -> None:
    one = TensorSpec("x", "float32", ("batch", "time", 3))
    states = tuple(StateSpec(name, f"{name}.next", "float32", size) for name, size in (("h", 5), ("c", 7)))
    sig = Signature((one,), (one,), states=states)
    check_states(sig, replace(DEFAULT_LIMITS, state_numbers=12))
    with pytest.raises(ModelFileError, match=r"states of one sequence have 12 numbers, limits.state_numbers allows 11"):
        check_states(sig, replace(DEFAULT_LIMITS, state_numbers=11))


def test_metadata_are_counted_together() -> None:
    metadata = {"a": "[[1]]", "b": "ü"}
    size = sum(len(part.encode()) for item in metadata.items() for part in item)
    check_metadata(metadata, replace(DEFAULT_LIMITS, metadata_bytes=size, json_depth=2))
    with pytest.raises(ModelFileError, match=f"have {size} bytes, limits.metadata_bytes allows {size - 1}"):
        check_metadata(metadata, replace(DEFAULT_LIMITS, metadata_bytes=size - 1))
    with pytest.raises(ModelFileError, match=r"^a in the file lies more than 1 deep \(limits.json_depth\)"):
        check_metadata(metadata, replace(DEFAULT_LIMITS, json_depth=1))
    check_metadata({"text": "([[[", "quoted": '{"a[[": "[[\\"["}'}, replace(DEFAULT_LIMITS, json_depth=1))


@pytest.mark.parametrize("how", READ)
def test_a_file_is_read_up_to_its_limit(how: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"12345")
    assert READ[how](path, 5, "file_bytes") == b"12345"
    with pytest.raises(ModelFileError, match=r"m has 5 bytes, limits.file_bytes allows 4: .*Limits\(file_bytes=5\)$"):
        READ[how](path, 4, "file_bytes")
    path.write_bytes(b"")
    assert READ[how](path, 5, "file_bytes") == b""
    with pytest.raises(NotOnnxError, match=r"none: there is no such file$"):
        READ[how](tmp_path / "none", 5, "file_bytes")
    with pytest.raises(NotOnnxError, match=r"this is a directory, expected an ONNX file$"):
        READ[how](tmp_path, 5, "file_bytes")
    with pytest.raises(NotOnnxError, match=r"this is a device, expected an ONNX file$"):
        READ[how](Path(os.devnull), 5, "file_bytes")
    with pytest.raises(NotOnnxError, match=r"is no path of a file$"):
        READ[how](Path("a\0b"), 5, "file_bytes")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (weight(raw=bytes(23)), "w' has 6 numbers by its shape, but 23 bytes"),
        (weight(raw=bytes(25)), "w' has 6 numbers by its shape, but 25 bytes"),
        (weight(TensorProto.INT4, (3,), bytes(3)), "w' has 3 numbers by its shape, but 3 bytes"),
        (weight(99, raw=bytes(24)), "w' has the data type 99, which is not known here"),
        (weight(dims=(-1, 3), raw=b""), "w' has a shape that no tensor has"),
        (weight(dims=(1 << 24, 1 << 24), raw=b""), "w' has a shape that no tensor has"),
        (weight(TensorProto.STRING), "w' has 6 numbers by its shape, but 0 bytes"),
        (weight(), "w' has 6 numbers by its shape, but 0 bytes"),
    ],
    ids=["short", "long", "nibbles", "type", "negative", "giant", "texts", "nothing"],
)
def test_a_weight_holds_what_its_shape_says(tensor: onnx.TensorProto, message: str) -> None:
    with pytest.raises(NotOnnxError, match=f"{message}: export the model again|{message}$"):
        check(model(tensor))


def test_weights_that_hold_what_their_shapes_say() -> None:
    check(model(weight(raw=bytes(24)), weight(TensorProto.INT4, (3,), bytes(2)), weight(dims=(0, 7), raw=b"")))
    values = np.arange(6, dtype=np.float32)
    check(model(numpy_helper.from_array(values), helper.make_tensor("t", TensorProto.FLOAT, [2, 3], values)))
    check(model(helper.make_tensor("s", TensorProto.STRING, [2], ["a", "b"])))
    check(model(helper.make_tensor("i", TensorProto.INT64, [3], [0, -1, 1 << 40])))


@pytest.mark.parametrize(
    "entry",
    [field(1, b"k") + field(1, b"k"), field(3, b"k"), field(1, b"\xff"), b"\x08\x01", field(1, b"k") + b"\x12"],
    ids=["two keys", "other field", "no text", "integer", "cut"],
)
def test_metadata_that_are_no_pairs_are_refused(entry: bytes) -> None:
    graph = field(7, b"")
    assert metadata_of(graph + field(14, field(1, b"k") + field(2, b"v"))) == {"k": "v"}
    assert metadata_of(graph + field(14, field(2, b"v"))) == {"": "v"}
    with pytest.raises(NotOnnxError, match=r"^the file is no ONNX model"):
        metadata_of(graph + field(14, entry))


@pytest.mark.parametrize("name", Limits.__dataclass_fields__)
@pytest.mark.parametrize("value", [0, -1, True, 1.0, "7", None])
def test_a_limit_is_an_integer_of_at_least_one(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{name} is {value!r}, expected an integer of at least 1$"):
        Limits(**{name: value})  # type: ignore[arg-type]
    assert getattr(runtime.Limits(**{name: 1}), name) == 1


def test_a_version_of_a_file_is_told_from_the_next(tmp_path: Path) -> None:
    path = tmp_path / "m"
    assert Stamp.of(path) is None
    path.write_bytes(b"12345")
    first = Stamp.of(path)
    assert first == Stamp.of(path) and first is not None and (first.size, first.inode) == (5, path.stat().st_ino)
    (tmp_path / "link").symlink_to(path)
    assert Stamp.of(tmp_path / "link") == first, "links are followed"
    os.utime(path, ns=(7, first.changed_ns + 1))
    assert Stamp.of(path) not in (first, None)
    assert size_of(path) == 5
    with pytest.raises(NotOnnxError, match=r"none: the file cannot be read: No such file or directory$"):
        size_of(tmp_path / "none")
    with pytest.raises(NotOnnxError, match=r": this is a directory, expected an ONNX file$"):
        size_of(tmp_path)
