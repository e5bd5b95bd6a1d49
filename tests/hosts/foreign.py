"""Files of others, read as the caller says, and what Python answers to them: the foreign material for other hosts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from rnncore import runtime
from tests.runtime.foreign_files import CHUNK, FEATURES, H, Variant, foreign_file, vad_file, window_file
from tests.tolerances import bound, fixed

VAD = {
    "states": {"state": "stateN"},
    "constants": {"sr": 16000},
    "axes": {"state": "2 batch 128"},
    "chunk": 512,
    "context": 64,
}
PAIR = {"states": {"h": "hn"}}


def write_foreign(folder: Path) -> list[dict[str, Any]]:
    """For each file its name, the options of ``load``, inputs of two rows, how they are cut, and Python's answers."""
    folder.mkdir()
    files = {
        "vad": (vad_file(), VAD, (512,)),
        "windows": (window_file(3), {"states": {"total": "total_out"}, "chunk": CHUNK, "context": 3}, (CHUNK,)),
        "plain": (foreign_file(), PAIR, (FEATURES,)),
        "time first, hidden last but one": (
            foreign_file(Variant(x="time batch features", h="batch hidden layers", y="batch hidden time")),
            PAIR | {"axes": {"x": "time batch features", "h": "batch 3 2"}},
            (FEATURES,),
        ),
        "no batch, begins elsewhere": (
            foreign_file(Variant(x="time features", h="hidden", y="time hidden")),
            PAIR | {"axes": {"x": "time features"}, "initial": {"h": np.linspace(-1, 1, H).tolist()}},
            (FEATURES,),
        ),
        "one step a call, 16 bits": (
            foreign_file(Variant(time=1, batch=1, dtype="float16", scale=True)),
            PAIR | {"constants": {"scale": 0.5}},
            (FEATURES,),
        ),
    }
    if (ready := _silero()) is not None:
        files["silero-vad"] = (ready.read_bytes(), VAD, (512,))
    return [_case(folder, i, name, *one) for i, (name, one) in enumerate(files.items())]


def _silero() -> Path | None:
    """The ready file of the package silero-vad, where it is installed."""
    found = importlib.util.find_spec("silero_vad")
    folders = found.submodule_search_locations if found else None
    return Path(folders[0]) / "data" / "silero_vad.onnx" if folders else None


def _case(
    folder: Path, i: int, name: str, data: bytes, options: dict[str, Any], item: tuple[int, ...]
) -> dict[str, Any]:
    path = folder / f"{i}.onnx"
    path.write_bytes(data)
    model = runtime.load(path, **options)
    (port,), (output,) = model.signature.inputs, model.signature.outputs
    x = (np.random.default_rng(i).normal(0, 0.5, (2, 6, *item)) * 256).round() / 256  # the same in 16 bits
    with model.stream() as stream:
        chunks = [stream.push(x[0, a:b].astype(port.dtype)) for a, b in ((0, 1), (1, 4), (4, 6))]
    whole = model.run(x.astype(port.dtype))
    near = fixed("float16") if port.dtype == "float16" else bound("float32", "onnx", length=6)
    np.testing.assert_allclose(np.concatenate(chunks), whole[0], rtol=0, atol=near)
    return {
        "file": f"foreign/{path.name}",
        "name": name,
        "options": options,
        "input": port.name,
        "output": output.name,
        "shape": list(x.shape),
        "x": x.ravel().tolist(),
        "cuts": [0, 1, 4, 6],
        "answer": np.asarray(whole, np.float64).ravel().tolist(),
    }
