"""The blocks of pages that need packages of others, pasted in order: what the page says is printed is printed.

CI shows these blocks only: they run by ``scripts/ecosystem``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: scripts/ecosystem installs it")
pytest.importorskip("transformers", reason="transformers is not installed: scripts/ecosystem installs it")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: scripts/ecosystem installs it")

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
BLOCK = re.compile(r"^```py\n(.*?)^```", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"^print\(.*\)  # (.*)$", re.MULTILINE)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),  # of the trainers about themselves
]


def test_other_peoples_trainers_train_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (GUIDES / "trainers.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == 4
    names: dict[str, object] = {"__name__": "pasted"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"trainers.md, block {number}", "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        for wanted in PRINTED.findall(block):
            assert wanted in printed
    assert {path.name for path in tmp_path.glob("*.onnx")} == {"lightning.onnx", "trainer.onnx", "searched.onnx"}
