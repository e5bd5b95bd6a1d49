"""What torch's exporter needs in this folder, see tests/export/conftest.py."""

from __future__ import annotations

import logging

import torch

torch.set_num_threads(1)
# pytest hangs its handler on loggers that do not propagate; torch.export then believes that somebody wants its trace.
logging.getLogger("torch.__trace").propagate = True
