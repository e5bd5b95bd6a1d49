"""Files that many tests use, exported once a session."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from tests.export.exporting import Exported, export_forms
from tests.export.modules import LastStep, MeanPool, Network, ids, mixed_stack, tagger
from tests.strategies import randomize

torch.set_num_threads(1)
# pytest hangs its handler on loggers that do not propagate; torch.export then believes that somebody wants its trace,
# and a failing test prints thousands of debug records.
logging.getLogger("torch.__trace").propagate = True


@pytest.fixture(scope="session")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Embedding, torch's bidirectional LSTM, linear head; wide enough for weights to outweigh the graph."""
    module = tagger("lstm bidirectional", hidden_size=128)
    return export_forms(module, tmp_path_factory.mktemp("both_ways"), ids(2, 6))


@pytest.fixture(scope="session")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Three mixed layers with learned initial states; outputs y and the final states."""
    network = Network(mixed_stack(), with_states=True).eval()
    return export_forms(network, tmp_path_factory.mktemp("causal"), torch.randn(2, 4, 5))


@pytest.fixture(scope="session")
def last_step(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A torch.nn GRU whose answer is that of the last step."""
    return export_forms(randomize(LastStep().eval(), 3), tmp_path_factory.mktemp("last_step"), torch.randn(2, 4, 5))


@pytest.fixture(scope="session")
def mean_pool(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A torch.nn GRU whose answer is the mean over time."""
    return export_forms(randomize(MeanPool().eval(), 3), tmp_path_factory.mktemp("mean_pool"), torch.randn(2, 4, 5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder; whatever a failed export leaves in it is seen."""
    empty = tmp_path / "models"
    empty.mkdir()
    return empty
