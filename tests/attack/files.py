"""Model files with bytes turned, messages cut, doubled and exchanged, values in their JSON replaced, and stamped anew: refused
with an error of ours, or loaded and run; nothing else, and in bounded time."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import numpy as np
import onnx

from rnncore import runtime
from rnncore.runtime.format.container import FINGERPRINT_KEY, metadata_of, replace_metadata, stamp
from rnncore.runtime.format.protobuf import parse
from rnncore.runtime.format.signature import BLANK_FINGERPRINT
from tests.runtime.files import Spec, causal_file
from tests.runtime.test_limits import golden

FILES = 300
SLOWEST_S = 20.0  # of processor time for one file; a bomb takes minutes
VALUES: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        1,
        1.5,
        2**31,
        2**63,
        10**30,
        float("nan"),
        float("inf"),
        "",
        "12",
        "\x1b[2J",
        "batch",
        "time",
        "float32",
    ),
    *([], {}, [[]], {"of": "time", "times": 1, "plus": 0, "over": 0}, ["batch", "time", 13], "é" * 99, [1] * 2000),
]
SPECS = (Spec(), Spec(lengths=True, learned=True, last=True, speaker=True), Spec(ids=True, learned=True, limit=True))


def run(amount: int) -> dict[str, int]:
    rng = np.random.default_rng(11)
    counts = dict.fromkeys(("files", "refused", "loaded", "verified"), 0)
    kinds = (damaged, rebuilt, other_values)
    for number in range(FILES * amount):
        original = causal_file(SPECS[number % len(SPECS)])
        data = kinds[int(rng.integers(len(kinds)))](with_golden(original), rng)
        counts["files"] += 1
        start = time.process_time()
        foreign: dict[str, Any] = {"states": {"c": "c_out", "h": "h_out"}} if number % 5 == 0 else {}
        if foreign:
            data = changed(of_somebody_else(original), rng)
        try:
            model = runtime.load(data, **foreign)
            counts["loaded"] += 1
            with contextlib.suppress(runtime.RnncoreError):
                runtime.verify(model)
                counts["verified"] += 1
        except runtime.ModelFileError as error:
            counts["refused"] += 1
            assert len(str(error).splitlines()) <= 12
        took = time.process_time() - start
        assert took < SLOWEST_S, f"file {number} took {took:.0f} s"
    return counts


def with_golden(data: bytes) -> bytes:
    return restamped(data, {"rnncore.golden": golden()})


def restamped(data: bytes, entries: dict[str, str]) -> bytes:
    return stamp(replace_metadata(data, {**entries, FINGERPRINT_KEY: BLANK_FINGERPRINT}))


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes turned, cut out or doubled; the fingerprint does not fit."""
    other = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        first, second = sorted(rng.integers(0, len(other), 2).tolist())
        kind = int(rng.integers(4))
        if kind == 0:
            other[first] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del other[first:second]
        elif kind == 2:
            other[first:first] = other[first:second]
        else:
            other[first] = int(rng.integers(256))
    return bytes(other) or b"\0"


def rebuilt(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes in one message of the graph are others, all lengths right, and the fingerprint too."""
    other = changed(data, rng)
    try:
        return restamped(other, {})
    except Exception:  # the metadata themselves: then without a new stamp
        return other


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes in one message of the graph are others; nothing is longer or shorter."""
    kinds = ("StringStringEntryProto", "NodeProto", "AttributeProto", "TensorProto", "ValueInfoProto")
    messages = [m for m in parse(data) if m.kind in kinds and m.end > m.start]
    chosen = messages[int(rng.integers(len(messages)))]
    other = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        other[int(rng.integers(chosen.start, chosen.end))] = int(rng.integers(256))
    return bytes(other)


def of_somebody_else(data: bytes) -> bytes:
    """The same graph in a file that knows nothing of rnncore."""
    model = onnx.load_from_string(data)
    del model.metadata_props[:]
    return model.SerializeToString()


def other_values(data: bytes, rng: np.random.Generator) -> bytes:
    """One value anywhere in the JSON of the metadata is another one."""
    metadata = metadata_of(data)
    key = ["rnncore.signature", "rnncore.golden", "rnncore.report"][int(rng.integers(3))]
    content = json.loads(metadata[key])
    for _ in range(int(rng.integers(1, 3))):
        place = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            name = keys[int(rng.integers(len(keys)))]
            if isinstance(place[name], dict | list) and rng.integers(4):
                place = place[name]
                continue
            place[name] = VALUES[int(rng.integers(len(VALUES)))]
            break
        if not isinstance(content, dict):
            break
    return restamped(data, {key: json.dumps(content)})
