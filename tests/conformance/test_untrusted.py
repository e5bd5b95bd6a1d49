"""Other programs get a file of somebody unknown within limits, and only what was signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rnncore import runtime
from rnncore.cli.app import app
from rnncore.conformance.driver import verify_on
from tests.runtime.test_limits import endless, golden, with_metadata
from tests.runtime.test_signing import keys


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(with_metadata(golden=golden()))
    return path


def test_another_program_runs_what_was_signed(model: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    other = keys(tmp_path, "other")[1]
    with pytest.raises(runtime.SignatureError, match="not signed"):
        verify_on(model, "onnxruntime", public_key=public)
    runtime.sign(model, private)
    report = verify_on(model, "onnxruntime", public_key=public)
    assert report.passed and report.name == str(model) and report == verify_on(model, "onnxruntime")
    with pytest.raises(runtime.SignatureError, match="by the key"):
        verify_on(model, "onnxruntime", public_key=other)
    arguments = ["verify", str(model), "--backend", "onnxruntime", "--public-key"]
    assert CliRunner().invoke(app, [*arguments, str(public)]).exit_code == 0
    model.write_bytes(with_metadata(golden=golden(), precision="another"))
    refused = CliRunner().invoke(app, [*arguments, str(public)])
    assert refused.exit_code == 1 and "not one of this file" in refused.stderr
    with pytest.raises(runtime.InputError, match="no backend 'caffe'"):
        verify_on(model, "caffe", isolated=True)


def test_a_graph_without_end_is_ended_in_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(endless())
    result = CliRunner().invoke(app, ["verify", str(path), "--backend", "onnxruntime", "--limit-s", "5"])
    assert result.exit_code == 1 and "not done after 5 s" in result.stderr
