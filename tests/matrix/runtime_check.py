"""What a service does with files, without PyTorch and without the tests: ``python runtime_check.py FOLDER``.

Golden answers again, streams against the whole, saved and moved together, pools; one line a file, exit 1 if any is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from rnncore import runtime

TOLERANCE = 1e-4  # that of verification in float32; int8 is compared with itself


def main(folder: Path) -> int:
    wrong = 0
    paths = sorted(folder.glob("*.onnx"))
    for path in paths:
        try:
            _check(path)
        except Exception as error:
            wrong += 1
            print(f"WRONG {path.name}: {type(error).__name__}: {str(error)[:300]}")
    print(f"{len(paths) - wrong} passed, {wrong} failed")
    return 1 if wrong or not paths else 0


def _check(path: Path) -> None:
    report = runtime.verify(path)
    assert report.cases and report.passed, f"golden answers differ:\n{report}"
    model = runtime.load(path)
    if model.signature.causal:
        _check_streams(model)


def _check_streams(model: runtime.Model) -> None:
    """Only for files that read one sequence of ids or floats."""
    ports = model.signature.inputs
    if len(ports) != 1:
        return
    (port,) = ports
    random = np.random.default_rng(0)
    if port.dtype == "int64":
        rows = [random.integers(0, port.limit or 2, 11) for _ in range(3)]
    else:
        rows = [random.normal(size=(11, int(port.shape[-1]))).astype(port.dtype) for _ in range(3)]
    wholes = [_parts(model.run([row])) for row in rows]
    with model.pool(max_batch=4) as pool:
        pooled = [pool.open() for _ in rows]
        streams = [model.stream() for _ in rows]
        answers: list[list[list[np.ndarray]]] = [[] for _ in rows]
        for start, end in ((0, 4), (4, 5), (5, 11)):
            chunks = [row[start:end] for row in rows]
            together = model.push_many(streams, chunks)
            streams = [model.restore(stream.save()) for stream in streams]
            for own, one, stream, chunk in zip(answers, together, pooled, chunks, strict=True):
                own.append(_parts(one))
                _same(_parts(stream.push(chunk)), own[-1], "a pool and push_many")
    for parts, whole in zip(answers, wholes, strict=True):
        for output, value in enumerate(whole):
            value = value[0]
            got = [part[output] for part in parts]
            joined = np.concatenate(got) if np.ndim(value) == np.ndim(got[0]) and len(value) == 11 else got[-1]
            _same([joined], [value], "chunks and the whole")


def _parts(result: object) -> list[np.ndarray]:
    if isinstance(result, dict):
        return [np.asarray(value) if not isinstance(value, list) else value for value in result.values()]
    return list(result) if isinstance(result, tuple) else [result]  # type: ignore[list-item]


def _same(found: list[np.ndarray], wanted: list[np.ndarray], what: str) -> None:
    for a, b in zip(found, wanted, strict=True):
        error = float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max(initial=0.0))
        assert error <= TOLERANCE * max(1.0, float(np.abs(b).max(initial=0.0))), f"{what} differ by {error:.2g}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
