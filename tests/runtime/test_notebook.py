"""Models and reports show themselves in a notebook, and nothing of a file is taken for HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import torch
from torch import nn

from rnncore import runtime
from rnncore.export import export
from rnncore.runtime.format.signature import Signature, TensorSpec
from rnncore.runtime.notebook import shown


class Cells(HTMLParser):
    """The rows of all tables, and that every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_a_model_and_its_report_show_what_goes_in_and_out(tmp_path: Path) -> None:
    report = export(
        nn.LSTM(3, 4, batch_first=True), tmp_path / "m.onnx", torch.randn(2, 5, 3), output_names=["y", "h", "c"]
    )
    model = runtime.load(report.path)
    for html, fact in ((model._repr_html_(), model.fingerprint), (report._repr_html_(), "cases verified")):
        rows = Cells(html).rows
        ports = rows[rows.index(["", "name", "dtype", "shape"]) + 1 :]
        assert [row[:2] for row in ports if row[0] in ("input", "output")][:2] == [
            ["input", model.inputs[0]],
            ["output", "y"],
        ]
        assert ["input", model.inputs[0], "float32", "[batch, time, 3]"] in ports
        assert sum(row[0] == "state" for row in ports) == len(model.signature.states) > 0
        assert any(fact in cell for row in rows for cell in row)


def test_nothing_of_a_file_is_html() -> None:
    evil = "<script>alert('x')</script>&amp;\"" + "y" * 5000
    port = TensorSpec(evil, "float32", ("batch", "time", evil))
    html = shown(evil, {evil: evil}, Signature(inputs=(port,), outputs=(port,)))
    assert Cells(html).tags == {"div", "b", "table", "tr", "td", "th"}
    assert len(html) < 5000 and not re.search("y{400}", html)
