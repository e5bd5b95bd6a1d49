"""``TaskModel``: what every ready model can do besides its forward pass."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rnncore.models.pretrained import Pretrained
from rnncore.models.reader import Reader
from rnncore.models.reader_config import ReaderConfig
from rnncore.runtime.errors import InputError
from rnncore.runtime.tasks.task import LABELS_KEY, TASK_KEY

Metrics = dict[str, tuple[float, int]]
"""Name -> (sum over a batch, how many were summed); the metric is the one divided by the other, over all batches."""


class TaskModel(Pretrained):
    """A model with its loss, its metrics, and what its file says about itself.

    A subclass defines ``forward(x, lengths)``, ``collate``, ``loss`` and ``metrics``.  ``collate`` turns a list of
    examples into the keyword arguments of the other two, which is what :func:`rnncore.training.fit` works with.
    """

    task: ClassVar[str]
    output_name: str

    def __init__(self, config: ReaderConfig, labels: Sequence[str] = (), extra_features: int = 0) -> None:
        super().__init__()
        self.reader = Reader(config, extra_features)
        self.labels = tuple(labels)
        self._label_ids = {label: i for i, label in enumerate(self.labels)}
        if len(self._label_ids) < len(self.labels) or not all(isinstance(label, str) for label in self.labels):
            raise InputError(f"labels are {list(self.labels)}, expected different strings")

    @property
    def streams(self) -> bool:
        """Whether the model's answer never depends on later input, so that its file streams."""
        return not self.reader.config.bidirectional

    def label_id(self, label: str) -> int:
        """The number of a label; raises InputError that lists the labels."""
        if label not in self._label_ids:
            raise InputError(f"unknown label {label!r}; known: {', '.join(self.labels)}")
        return self._label_ids[label]

    def example_inputs(self) -> dict[str, Tensor]:
        """Keyword arguments of ``forward`` to export with; ids reach from the lowest to the highest."""
        config = self.reader.config
        lengths = torch.tensor([3, 2])
        if config.vocabulary_size is not None:
            top = config.vocabulary_size - 1
            return {"x": torch.tensor([[0, top, top], [top, 0, 0]]), "lengths": lengths}
        # Numbers as the model was made for: standardised, they are around 0 with deviation 1.
        noise = torch.randn(2, 3, config.features or 1, generator=torch.Generator().manual_seed(0))
        return {"x": noise.to(self.reader.mean) / self.reader.scale + self.reader.mean, "lengths": lengths}

    def file_metadata(self) -> dict[str, str]:
        """The entries of the file's metadata that tell its task and its labels."""
        entries = {TASK_KEY: self.task}
        if self.labels:
            entries[LABELS_KEY] = json.dumps(self.labels, ensure_ascii=False)
        return entries

    def loss(self, **batch: Any) -> tuple[Tensor, int]:
        """(loss summed over a batch, number of terms summed)."""
        raise NotImplementedError(f"{type(self).__name__} must define loss")

    def metrics(self, **batch: Any) -> Metrics:
        """What is counted on held-out data, see :data:`Metrics`."""
        raise NotImplementedError(f"{type(self).__name__} must define metrics")


def pad_sequences(sequences: Sequence[Any], fill: float = 0) -> tuple[Tensor, Tensor]:
    """Sequences [time_i, ...] of ids or floats as one tensor [batch, longest, ...], and their lengths int64 [batch].

    Integers become int64, floats float32; ``fill`` stands in the padding.
    """
    if not len(sequences):
        raise InputError("there is no sequence to pad: hand in at least one")
    arrays = [np.asarray(sequence) for sequence in sequences]
    floats = any(array.dtype.kind == "f" and (array.size or array.ndim > 1) for array in arrays)  # [] has no dtype
    lengths = [len(array) for array in arrays]
    inner = max((array.shape[1:] for array in arrays), key=len)
    padded = np.full((len(arrays), max(lengths), *inner), fill, np.float32 if floats else np.int64)
    for row, array in enumerate(arrays):
        if array.size:
            padded[row, : len(array)] = array
    return torch.from_numpy(padded), torch.tensor(lengths, dtype=torch.int64)
