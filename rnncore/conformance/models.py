"""Whole models as ``export`` writes them, on every program: deep stacks, a streaming front end, int8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rnncore.conformance.backends import BACKENDS, BackendError
from rnncore.conformance.driver import verify_on
from rnncore.export import export
from rnncore.layers import LSTM, CausalConv1d, Stacked

MODEL_FORMS = ("loop", "scan", "portable")
_SEED = 7


@dataclass(frozen=True)
class ModelRow:
    """What one file did: for each backend the largest error of its golden cases, or the reason why there is none."""

    model: str
    form: str
    results: dict[str, float | str]


class Tagger(nn.Module):
    """Embedding, recurrent layers of ``torch.nn``, a linear head."""

    def __init__(self, layer: type[nn.LSTM | nn.GRU], layers: int, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(29, 13)
        self.rnn = layer(13, 17, num_layers=layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(17 * (1 + bidirectional), 5)

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, time] -> [batch, time, 5]."""
        result: Tensor = self.head(self.rnn(self.embedding(ids))[0])
        return result


class Spotter(nn.Module):
    """A convolution over time that streams, and an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Stacked([CausalConv1d(7, 11, kernel_size=3), nn.ReLU(), LSTM(11, 13), nn.Linear(13, 3)])

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, 7] -> [batch, time, 3]."""
        result: Tensor = self.net(x)[0]
        return result


class Wide(nn.Module):
    """An LSTM below a head as wide as the labels of many tasks are."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(40, 64, batch_first=True)
        self.head = nn.Linear(64, 600)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, 40] -> [batch, time, 600]."""
        result: Tensor = self.head(self.rnn(x)[0])
        return result


def _frames() -> Tensor:
    return torch.randn(2, 6, 40)


def _ids() -> Tensor:
    return torch.randint(29, (2, 6))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], dict[str, Any]]] = {
    "LSTM, 4 layers": (lambda: Tagger(nn.LSTM, 4), _ids, {}),
    "LSTM, 4 layers, bidirectional": (lambda: Tagger(nn.LSTM, 4, bidirectional=True), _ids, {}),
    "causal convolution and LSTM": (Spotter, lambda: torch.randn(2, 6, 7), {}),
    "LSTM, head of 600": (Wide, _frames, {}),
    "LSTM, 2 layers, int8": (lambda: Tagger(nn.LSTM, 2), _ids, {"quantize": "int8"}),
    "GRU, 2 layers, bidirectional, int8": (
        lambda: Tagger(nn.GRU, 2, bidirectional=True),
        _ids,
        {"quantize": "int8"},
    ),
}


def measure_models(
    *,
    models: Sequence[str] = tuple(MODELS),
    forms: Sequence[str] = MODEL_FORMS,
    backends: Sequence[str] = tuple(BACKENDS),
) -> Iterator[ModelRow]:
    """One row for each model in each form.  Each backend must be installed (MissingExtraError)."""
    for name in models:
        make, example, options = MODELS[name]
        torch.manual_seed(_SEED)
        module, call = make().eval(), example()
        for form in forms:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                export(module, path, call, form=form, **options)  # type: ignore[arg-type]
                yield ModelRow(name, form, {backend: _result(path, backend) for backend in backends})


def _result(path: Path, backend: str) -> float | str:
    try:
        report = verify_on(path, backend)
    except BackendError as refusal:
        return str(refusal)
    failed = [case for case in report.cases if not case.passed]
    if not failed:
        return max(case.max_rel for case in report.cases)
    return next((case.note for case in failed if case.note), f"wrong numbers (error {failed[0].max_rel:.2g})")
