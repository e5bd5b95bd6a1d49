"""Saved states with bits turned, bytes cut, doubled and exchanged, headers signed anew: refused, or what was saved."""

from __future__ import annotations

import hashlib
import json
import struct

import numpy as np

from rnncore import runtime
from tests.runtime.data import model, sequence
from tests.runtime.files import Spec

SPEC = Spec(lengths=True, learned=True)
BLOBS = 4000
VALUES = [None, True, -1, 0, 1.5, 2**63, 2**200, "12", "", [], {}, float("nan"), "é" * 9, [["c", "float32", 7]]]


def run(amount: int) -> dict[str, int]:
    rng = np.random.default_rng(8)
    stream = model(SPEC).stream()
    stream.push(sequence(SPEC, rng, 9))
    blob, refused, taken = stream.save(), 0, 0
    with model(SPEC).pool() as pool:
        for number in range(BLOBS * amount):
            changed = altered(blob, rng) if number % 4 else signed_anew(blob, rng)
            try:
                again = (pool if number % 2 else model(SPEC)).restore(changed)
            except runtime.SnapshotError:
                refused += 1
                continue
            taken += 1
            assert type(again.steps) is int and 0 <= again.steps < 2**63
            assert all(np.array_equal(again.state[name], value) for name, value in stream.state.items())
            again.close()
        assert pool.stats()["streams"] == 0
    return {"altered states": BLOBS * amount, "refused": refused, "taken, with the values that were saved": taken}


def altered(blob: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(blob)
    first, second = sorted(rng.integers(0, len(data), 2).tolist())
    kind = int(rng.integers(5))
    if kind == 0:
        data[first] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[first : second + 1]
    elif kind == 2:
        data[first:first] = data[first : second + 1]
    elif kind == 3:
        data[first : second + 1] = rng.bytes(second + 1 - first)
    else:
        return bytes(data[:first])
    return bytes(data)


def signed_anew(blob: bytes, rng: np.random.Generator) -> bytes:
    """Another header, with a checksum that is right."""
    magic, version, size = struct.unpack_from("<8sII", blob)
    header = json.loads(blob[16 : 16 + size])
    header[str(rng.choice(list(header)))] = VALUES[int(rng.integers(len(VALUES)))]
    text = json.dumps(header).encode()
    body = struct.pack("<8sII", magic, version, len(text)) + text + blob[16 + size : -32]
    return body + hashlib.sha256(body).digest()
