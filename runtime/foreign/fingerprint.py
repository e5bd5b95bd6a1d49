"""Which model a foreign file is, as it was loaded: the same bytes read in two ways are two models.

Other constants, other pairs of states, other axes or chunks lead to other states from the same input; a state that was
saved under one reading must not go on under another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.format.signature import Signature
from rnncore.runtime.tensors.graph_adapter import GraphAdapter


def fingerprint_as_loaded(file: str, signature: Signature, adapter: GraphAdapter) -> str:
    """SHA-256, as 64 hex digits, of the fingerprint of the file and of all that says how its graph is read."""
    said = {
        "file": file,
        "signature": signature.to_json(),  # pairs of states, their order, shapes and initial values
        "ports": [[p.name, p.dims, p.batch, p.time] for p in (*adapter.inputs, *adapter.outputs)],
        "states": [[s.port.name, s.output, s.port.dims, s.port.batch] for s in adapter.states],
        "contexts": [[c.input, c.state, c.size] for c in adapter.contexts],
        "chunks": sorted(adapter.chunks.items()),
        "timed": sorted(adapter.timed),
        "chunked": adapter.chunked,
        "constants": _described(adapter.constants),
    }
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()


def _described(constants: Mapping[str, NDArray[np.generic]]) -> list[list[object]]:
    """Name, dtype, shape and a hash of the values, little-endian, of each; in the order of their names."""
    return [
        [name, array.dtype.name, array.shape, hashlib.sha256(_bytes(array)).hexdigest()]
        for name, array in sorted(constants.items())
    ]


def _bytes(array: NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
