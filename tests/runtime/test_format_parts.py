"""What a file says of its tensors, sizes and ports, entry by entry: what is left out, what is meant by it, what is refused."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rnncore.runtime.errors import ForeignModelError, ModelFileError, NotOnnxError, TamperedModelError
from rnncore.runtime.format.axes import Axis, Flat, Steps
from rnncore.runtime.format.container import FINGERPRINT_KEY, digest, fingerprint_of, metadata_of, stamp
from rnncore.runtime.format.document import DOCUMENT_VERSION, document_of
from rnncore.runtime.format.golden import StoredArray
from rnncore.runtime.format.limits import DEFAULT_LIMITS
from rnncore.runtime.format.options import Option
from rnncore.runtime.format.protobuf import field, parse
from rnncore.runtime.format.signature import BLANK_FINGERPRINT, GatherOutput, Signature, StateSpec, TensorSpec
from rnncore.runtime.format.structure import Structure
from rnncore.runtime.format.tensors import Outside, check_tensors, external_locations, outside_tensors
from tests.runtime.files import Spec, causal_file, signature

# ------------------------------------------------------------------------------------------------------------- tensors


def outside(*entries: tuple[str, str], kind: int = TensorProto.FLOAT, name: str = "w") -> onnx.TensorProto:
    tensor = TensorProto(dims=(2, 3), data_type=kind, name=name, data_location=TensorProto.EXTERNAL)
    for key, value in entries:
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(*tensors: onnx.TensorProto, body: onnx.TensorProto | None = None) -> bytes:
    nodes = []
    if body is not None:
        branch = helper.make_graph([], "branch", [], [], [body])
        nodes.append(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    data: bytes = helper.make_model(helper.make_graph(nodes, "g", [], [], list(tensors))).SerializeToString()
    return data


def found(data: bytes) -> list[Outside]:
    return outside_tensors(data, parse(data))


def test_where_a_tensor_lies_outside() -> None:
    whole = outside(("location", "f"), ("offset", "8"), ("length", "24"), ("checksum", "x"))
    assert found(model(whole)) == [Outside("the tensor 'w'", "f", 8, 24, False)]
    assert found(model(outside(("location", "f")))) == [Outside("the tensor 'w'", "f", 0, 24, False)]
    assert found(model(outside(name=""))) == [Outside("a tensor", "", 0, 24, False)]
    assert found(model(outside(("offset", "1"), name="n" * 70)))[0].name == f"the tensor {'n' * 60!r}"
    inner = model(whole, body=outside(("location", "g")))
    assert [(tensor.location, tensor.nested) for tensor in found(inner)] == [("f", False), ("g", True), ("g", True)]
    assert external_locations(inner) == {"f", "g"}
    assert (
        Structure.of(inner, DEFAULT_LIMITS).nested == {"g"}
        and Structure.of(model(whole), DEFAULT_LIMITS).nested == set()
    )


def test_an_entry_without_a_key_or_a_value_is_one_with_an_empty_one() -> None:
    tensor = outside()
    tensor.external_data.add().value = "f"
    with pytest.raises(NotOnnxError, match=r"^the entry '' of external data of the tensor 'w' is unknown$"):
        found(model(tensor))
    tensor = outside()
    tensor.external_data.add().key = "location"
    assert found(model(tensor)) == [Outside("the tensor 'w'", "", 0, 24, False)]
    tensor.external_data[0].key = "offset"
    with pytest.raises(NotOnnxError, match=r"^the external data of the tensor 'w' begin at '', expected a number$"):
        found(model(tensor))


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ((("offset", "1"), ("offset", "1")), r"^the entry 'offset' of external data of the tensor 'w' is there twice$"),
        ((("place", "1"),), r"^the entry 'place' of external data of the tensor 'w' is unknown$"),
        (
            (("length", "23"),),
            r"^the tensor 'w' has 23 bytes in another file, its shape takes 24: export the model again$",
        ),
        ((("offset", "-1"),), r"begin at '-1', expected a number$"),
        ((("offset", "9" * 19),), r"begin at '9{19}', expected a number$"),
        ((("offset", "١"),), r"begin at '١', expected a number$"),
    ],
    ids=["twice", "unknown", "length", "negative", "long", "other digits"],
)
def test_what_is_wrong_with_a_place_outside(entries: tuple[tuple[str, str], ...], says: str) -> None:
    with pytest.raises(NotOnnxError, match=says):
        found(model(outside(*entries)))


def test_data_are_here_or_there() -> None:
    tensor = outside(("location", "f"))
    tensor.ClearField("data_location")
    with pytest.raises(
        NotOnnxError,
        match=r"^the tensor 'w' names another file, but says that its data are here: export the model again$",
    ):
        found(model(tensor))
    assert found(model(outside(("offset", "9" * 18))))[0].offset == int("9" * 18)


def test_a_type_that_is_not_there_is_not_known() -> None:
    data = model(outside(kind=0), TensorProto(dims=(2,), name="v", raw_data=b""))
    says = r"^the tensor 'w' has the data type 0, which is not known here$"
    with pytest.raises(NotOnnxError, match=says):
        found(data)
    bare = model(TensorProto(dims=(2,), name="v", raw_data=b"1"))
    with pytest.raises(NotOnnxError, match=r"^the tensor 'v' has the data type 0, which is not known here$"):
        check_tensors(bare, parse(bare), DEFAULT_LIMITS)


def test_sparse_tensors_are_counted_in_full_and_together() -> None:
    sparse = onnx.SparseTensorProto(dims=[3, 5])
    graph = helper.make_graph([], "g", [], [], sparse_initializer=[sparse, sparse])
    data = helper.make_model(graph).SerializeToString()
    check_tensors(data, parse(data), replace(DEFAULT_LIMITS, constant_numbers=30))
    with pytest.raises(
        ModelFileError, match=r"^sparse tensors have more numbers in full than limits\.constant_numbers allows$"
    ):
        check_tensors(data, parse(data), replace(DEFAULT_LIMITS, constant_numbers=29))
    sparse.dims[0] = -1
    data = helper.make_model(helper.make_graph([], "g", [], [], sparse_initializer=[sparse])).SerializeToString()
    with pytest.raises(NotOnnxError, match=r"^a sparse tensor has a shape that no tensor has: export the model again$"):
        check_tensors(data, parse(data), DEFAULT_LIMITS)


def test_what_is_kept_of_an_output_is_spread_over_its_last_axis() -> None:
    """24 numbers of which half fit: every third, since every second would be the same places of the last axis of 4."""
    kept = StoredArray.of(np.arange(24, dtype=np.float32).reshape(2, 3, 4), 48)
    assert kept.every == 3 and kept.values.tolist() == [0, 3, 6, 9, 12, 15, 18, 21]
    assert StoredArray.of(np.arange(24, dtype=np.float32).reshape(2, 4, 3), 48).every == 2
    assert StoredArray.of(np.float32(5.0).reshape(()), 1).values.tolist() == [5.0]


# ------------------------------------------------------------------------------------------------------------ document
def test_a_document_has_each_entry_of_ours_as_what_it_is() -> None:
    metadata = {
        "rnncore.form": "loop",
        "rnncore.report": '{"a": [1, null]}',
        "rnncore.list": "[1]",
        "rnncore.number": "7",
        "rnncore.no_json": "{no",
        "rnncore.nan": "[NaN]",
        "other": "{}",
        "a.rnncore.form": "x",
    }
    document = document_of(metadata)
    assert list(document) == ["document_version", "form", "list", "nan", "no_json", "number", "report"]
    assert document.pop("document_version") == DOCUMENT_VERSION == 1
    assert document == {
        "form": "loop",
        "list": [1],
        "nan": "[NaN]",
        "no_json": "{no",
        "number": "7",
        "report": {"a": [1, None]},
    }


# ----------------------------------------------------------------------------------------------------------- signature
X = TensorSpec("x", "float32", ("batch", "time", 3))


@pytest.mark.parametrize(
    ("port", "bounds"),
    [
        (TensorSpec("i", "int64", ("batch",)), None),
        (TensorSpec("i", "int64", ("batch",), 5), (0, 4)),
        (TensorSpec("i", "int64", ("batch",), None, -2), (-2, 2**63 - 1)),
        (TensorSpec("i", "int64", ("batch",), 5, 2), (2, 4)),
        (TensorSpec("i", "int8", ("batch",), 1000, -1000), (-128, 127)),
        (TensorSpec("i", "uint8", ("batch",), 256), (0, 255)),
    ],
)
def test_bounds_of_ids(port: TensorSpec, bounds: tuple[int, int] | None) -> None:
    assert port.bounds == bounds


def test_where_batch_and_time_are() -> None:
    flat = TensorSpec("y", "float32", (2, Flat(("batch", Steps("time", 1, 1, 2))), 3))
    assert (flat.inner, flat.batch_axis, flat.time_axis) == ((2, "batch", "(time+1)//2", 3), 1, 2)
    assert (X.batch_axis, X.time_axis) == (0, 1)
    bare = TensorSpec("z", "float32", (4, "width"))
    assert (bare.batch_axis, bare.time_axis) == (None, None)


@pytest.mark.parametrize(
    "newer",
    [
        {"axes": (Axis("time", 2),)},
        {"stride": 2},
        {"options": (Option("gain", 1.0),)},
        {"pick": GatherOutput("y", "at", "picked")},
        {"inputs": (replace(X, minimum=0),)},
        {"outputs": (replace(X, shape=("batch", Steps("time", 1, 0, 2))),)},
        {"outputs": (replace(X, shape=(Flat(("batch", "time")),)),)},
        {"states": (StateSpec("h", "h_out", "float32", 4, None, (2, "batch", 2)),)},
    ],
    ids=["axes", "stride", "options", "pick", "minimum", "steps", "flat", "rank"],
)
def test_what_only_format_2_can_say(newer: dict[str, Any]) -> None:
    old = Signature((X,), (X,), states=(StateSpec("h", "h_out", "float32", 4),))
    text = json.loads(old.to_json())
    assert old.format_version == 1 and not {"axes", "stride", "options"} & set(text)
    assert "minimum" not in text["inputs"][0] and "shape" not in text["states"][0] and ", " not in old.to_json()
    new = replace(old, **newer)
    assert new.format_version == 2 and Signature.from_json(new.to_json()) == new
    assert {"axes", "stride", "options"} <= set(json.loads(new.to_json()))


def test_an_axis_of_which_nothing_is_said_has_no_limits() -> None:
    known = Signature((X,), (X,), axes=(Axis("time", 2), Axis("width", 3)))
    assert (
        known.axis("width") == Axis("width", 3)
        and known.axis("else") == Axis("else")
        and not known.axis("else").bounded
    )


def test_states_begin_with_zeros_or_with_what_is_written() -> None:
    value = np.array([1.5, 0, -2], np.float32)
    text = StateSpec.encode_initial(value)
    assert (
        text == base64.b64encode(value.astype("<f4").tobytes()).decode() and StateSpec.encode_initial(value * 0) is None
    )
    for initial, wanted in ((text, value), (None, value * 0)):
        start = StateSpec("h", "h_out", "float32", 3, initial).initial_value()
        assert start.dtype == np.float32 and start.tolist() == wanted.tolist() and start.flags.writeable
    assert StateSpec("h", "o", "float32", 6).item_shape == (6,)
    assert StateSpec("h", "o", "float32", 6, None, (2, "batch", 3)).item_shape == (2, 3)


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(signature(Spec(lengths=True)).to_json()) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        changed(lengths=3),
        changed(inputs=[{"name": "x"}]),
        changed(states=[{"name": "c", "else": 1}]),
        changed(stride="x"),
        changed(axes=[{"name": "time", "minimum": None, "maximum": None, "multiple": 1}]),
        changed(pick={"of": "y"}),
        changed(options=[{"name": "gain"}]),
        changed(options=[asdict(Option("gain", 1.0)) | {"default": True}]),
    ],
)
def test_a_signature_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(
        ModelFileError, match=r"^rnncore\.signature in the file cannot be read \(.*\): export the model again$"
    ):
        Signature.from_json(text)


def test_a_signature_of_before_says_less() -> None:
    known = signature(Spec(lengths=True))
    data = json.loads(known.to_json())
    for port in [*data["inputs"], *data["outputs"], data["lengths"]]:
        del port["limit"]
    data.pop("pick")
    again = Signature.from_json(json.dumps(data))
    assert again == known and (again.stride, again.axes, again.options, again.pick) == (1, (), (), None)


# ---------------------------------------------------------------------------------------------------------- fingerprint
def test_a_fingerprint_is_of_the_file_without_it() -> None:
    data = causal_file(Spec())
    real = metadata_of(data)[FINGERPRINT_KEY]
    assert fingerprint_of(data, real) == real != digest(data) and len(digest(data)) == 64
    blank = data.replace(real.encode(), BLANK_FINGERPRINT.encode())
    assert stamp(blank) == data and fingerprint_of(blank, BLANK_FINGERPRINT) == real == digest(blank)
    assert fingerprint_of(b"\x09" + data[1:], real) != real
    with pytest.raises(
        ForeignModelError, match=r"^the metadata holds no 'rnncore\.fingerprint' of 64 zeros to fill in$"
    ):
        stamp(data)
    with pytest.raises(
        TamperedModelError, match=r"^rnncore\.fingerprint in the file has 63 characters, expected 64 hex digits$"
    ):
        fingerprint_of(data, real[1:])
    once = r"^the file does not hold exactly one rnncore\.fingerprint: it was edited after export$"
    again = field(14, field(1, FINGERPRINT_KEY.encode()) + field(2, real.encode()))
    for other in (data + again, data.replace(b"rnncore.fingerprint", b"rnncore.fingerprinT")):
        with pytest.raises(TamperedModelError, match=once):
            fingerprint_of(other, real)
    with pytest.raises(TamperedModelError, match=once):
        metadata_of(data + again)
    assert metadata_of(data + field(14, field(1, b"a")) * 2)["a"] == "", "what is not ours may be there twice"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "^the file is empty$"),
        (b"\x08\x0a", "^the file is no ONNX model: it holds no graph$"),
        (
            b"\x08\x0a\x3a\x05a",
            r"^the file is truncated or damaged: a field ends at byte \d+, the file has 5; copy or export it",
        ),
        (b"\x3a\x05a", "^the file is no ONNX model$"),
        (b"\x07\x0a", "^the file is no ONNX model, or is damaged$"),
        (
            b"\xff\xff\xff\xffORTM\xff\xff\xff\xff",
            r"^the file has onnxruntime's own format \(\.ort\), which keeps neither",
        ),
    ],
    ids=["empty", "no graph", "cut", "cut before the version", "other", "ort"],
)
def test_what_is_no_model_is_told_apart(data: bytes, says: str) -> None:
    with pytest.raises(NotOnnxError, match=says):
        metadata_of(data)
