"""A model file on disk, and a way to run commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from rnncore.cli.app import app
from tests.language_models import model_file

if TYPE_CHECKING:
    from click.testing import Result

Run = Callable[..., "Result"]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "model.onnx"
    path.write_bytes(model_file())
    return path


def runner() -> Run:
    """Runs a command line in this process."""
    made = CliRunner()
    return lambda *arguments, stdin=None: made.invoke(app, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def run() -> Run:
    return runner()
