"""What the README quotes is what its Python prints, and the package page repeats it; that all of it runs: tests/docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_the_report_that_the_readme_quotes_is_the_one_that_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = BLOCK.findall(README.read_text())[0]
    names: dict[str, object] = {}
    exec(compile(first, str(README), "exec"), names)
    assert re.sub(r"error .*", "error", str(names["report"])) == re.search(r"# (tagger\.onnx: .* max error)", first)[1]


def test_the_page_of_the_package_has_the_readmes_code_and_no_link_into_the_repository() -> None:
    text = README.with_name("PACKAGE.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == 3
    assert set(blocks) <= set(BLOCK.findall(README.read_text()))
    assert [target for target in re.findall(r"\]\(([^)]*)\)", text) if "://" not in target] == []
