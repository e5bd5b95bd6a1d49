"""What the README quotes is what its Python prints; that all of it runs is shown by tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_the_report_that_the_readme_quotes_is_the_one_that_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(compile(first, str(README), "exec"), names)
    assert re.sub(r"error .*", "error", str(names["report"])) == re.search(r"# (tagger\.onnx: .* max error)", first)[1]
