"""``accelerate launch`` on two processes of a CPU trains the model that one process trains.

``--multi_gpu`` is its word for torchrun, which needs no GPU; with ``--cpu`` and without mpirun it starts one process only.

tests/training does the same by torchrun, in CI.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rnncore.training.fit_checkpoint import FitCheckpoint
from tests.tolerances import fixed
from tests.training.tagging import Tagger, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_two_processes_train_the_same_model_as_one(tmp_path: Path) -> None:
    alone = tmp_path / "alone.pt"
    train(Tagger(), checkpoint=alone)
    together = tmp_path / "together.pt"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    # A settings file of whoever runs this must not count.
    environment["HF_HOME"] = str(tmp_path)
    result = subprocess.run(
        [*launch, "--main_process_port", "0", "-m", "tests.training.tagging", str(together), str(tmp_path / "log")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr
    one, two = FitCheckpoint.load(alone), FitCheckpoint.load(together)
    assert len(two.random_states) == 2, "there were two processes, and they knew of each other"
    for name, value in one.model.items():
        torch.testing.assert_close(
            two.model[name], value, rtol=fixed("float32 training gradient"), atol=fixed("float32"), msg=name
        )
