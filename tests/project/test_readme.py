"""The Python of the README runs as it stands, in order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    ids = np.random.default_rng(3).integers(5000, size=(2, 7))
    names: dict[str, object] = {"ids": ids}
    names |= {"x": torch.randn(2, 7, 80), "lengths": torch.tensor([7, 3])}  # what the cell's example is called with
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert {"report", "model", "blob", "layer"} <= names.keys()
    report = names["report"]
    assert re.sub(r"error .*", "error", str(report)) == re.search(r"# (tagger\.onnx: .* max error)", blocks[0])[1]
