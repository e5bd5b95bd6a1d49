"""Models that live on a GPU: trained there, exported from there, with the answers of the CPU."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnncore
from rnncore.export import export, export_model, export_translator
from rnncore.models import EncoderDecoder, EncoderDecoderConfig
from rnncore.runtime import load
from rnncore.training import Checkpoint, Trainer, fit, new_model
from tests.language_models import torch_model as language_model
from tests.language_models import vocabulary
from tests.parity import leaves
from tests.strategies import randomize
from tests.tolerances import fixed
from tests.training.small import CONFIG, CORPUS, SETTINGS, VOCABULARY
from tests.training.tagging import HELD_OUT, TRAINING, Tagger, collate

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here"),
    pytest.mark.filterwarnings("ignore:TensorFloat32"),  # a hint of torch's compiler
]
CLOSE = {"rtol": fixed("float32 long"), "atol": fixed("float32 long")}


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """Products in float32, not in the shorter TF32, as on a CPU."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(20, 6), nn.LSTM(6, 5, bidirectional=True, batch_first=True)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.table(ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


class ByHand(nn.Module):
    """A loop, a tensor that is neither parameter nor buffer, and devices named in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.scale = nn.LSTMCell(3, 4), torch.full((4,), 0.5, device="cuda")

    def forward(self, x: Tensor) -> Tensor:
        h, c = torch.zeros(x.size(0), 4, device="cuda"), torch.zeros(x.size(0), 4).cuda()
        out = []
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], (h, c))
            out.append(h * self.scale)
        return torch.stack(out, 1)


class Carried(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, num_layers=2, batch_first=True)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.gru(x, h)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        cell = rnncore.LSTMCell(3, 4, peephole="current", layer_norm=True)
        self.layer = rnncore.Recurrent(cell)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], tuple[Tensor, ...]]] = {
    "packed": (
        Packed,
        (torch.randint(20, (2, 6)), torch.tensor([6, 4])),
        (torch.randint(20, (3, 9)), torch.tensor([9, 2, 5])),
    ),
    "by hand": (ByHand, (torch.randn(2, 6, 3),), (torch.randn(3, 9, 3),)),
    "carried": (Carried, (torch.randn(2, 6, 3), torch.zeros(2, 2, 4)), (torch.randn(3, 9, 3), torch.zeros(2, 3, 4))),
    "own": (Own, (torch.randn(2, 6, 3),), (torch.randn(3, 9, 3),)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("example_there", [True, False], ids=["example on the GPU", "example on the CPU"])
def test_a_module_there_exports_as_its_copy_here(name: str, example_there: bool, tmp_path: Path) -> None:
    make, example, other = MODULES[name]
    torch.manual_seed(0)
    module = make().cuda().eval()
    given = tuple(value.cuda() for value in example) if example_there else example
    report = export(module, tmp_path / "there.onnx", given)
    assert {p.device.type for p in module.parameters()} == {"cuda"}, "the module stays where it was"
    if name != "by hand":  # which runs on a GPU only
        export(copy.deepcopy(module).cpu(), tmp_path / "here.onnx", example)
        assert (tmp_path / "there.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()
    with torch.no_grad():
        answers = module(*(value.cuda() for value in other))
    wanted = answers[0] if isinstance(answers, tuple) else answers
    x, lengths = (other[0].numpy(), other[1].numpy() if name == "packed" else None)
    got = load(tmp_path / "there.onnx").run(x, lengths=lengths)
    got = next(iter(got.values())) if isinstance(got, dict) else got
    np.testing.assert_allclose(got, wanted.cpu().numpy(), **CLOSE)
    assert report.causal == (name != "packed")


def test_int8_with_accuracy_data_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(32, 64, batch_first=True)
    data = [torch.randn(2, 12, 32).cuda() for _ in range(2)]
    report = export(module.cuda(), tmp_path / "m.onnx", data[0], quantize="int8", accuracy_data=data)
    assert report.accuracy is not None


def test_ready_models_there(tmp_path: Path) -> None:
    model = copy.deepcopy(language_model()).cuda()
    export_model(model, tmp_path / "there.onnx", vocabulary=vocabulary())
    export_model(copy.deepcopy(language_model()), tmp_path / "here.onnx", vocabulary=vocabulary())
    assert (tmp_path / "there.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()


def test_a_translator_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cells = (rnncore.CellConfig.named("gru", 8),)
    config = EncoderDecoderConfig(11, 12, cells, cells)
    model = randomize(EncoderDecoder(config).eval(), 1).cuda()
    report = export_translator(model, tmp_path / "m.onnx")
    assert report.path.exists()
    assert next(model.parameters()).is_cuda


KINDS: dict[str, tuple[type[rnncore.Cell], dict[str, Any]]] = {
    "rnn": (rnncore.RNNCell, {}),
    "lstm": (rnncore.LSTMCell, {}),
    "gru": (rnncore.GRUCell, {}),
    "gru before": (rnncore.GRUCell, {"reset": "before"}),
    "peephole": (rnncore.LSTMCell, {"peephole": "current"}),
    "layer norm": (rnncore.LSTMCell, {"layer_norm": True}),
    "coupled": (rnncore.LSTMCell, {"coupled": True}),
    "min_gru": (rnncore.MinGRUCell, {}),
    "min_lstm": (rnncore.MinLSTMCell, {}),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled steps"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_there_answer_and_learn_as_here(kind: str, reverse: bool, compiled: bool) -> None:
    cell, options = KINDS[kind]
    torch.manual_seed(1)
    here = randomize(rnncore.Recurrent(cell(3, 5, **options), reverse=reverse), 2)
    there = copy.deepcopy(here).cuda()
    if compiled:
        rnncore.compile_steps(there)
    x, lengths = torch.randn(4, 7, 3), torch.tensor([7, 3, 5, 1])
    answers = []
    for layer, device in ((here, "cpu"), (there, "cuda")):
        y, state = layer(x.to(device), None, lengths)
        loss = y.square().sum() + sum(part.sum() for part in leaves(state))
        loss.backward()
        answers.append([y, *leaves(state), *(p.grad for p in layer.parameters() if p.grad is not None)])
    for one, two in itertools.zip_longest(*answers):
        torch.testing.assert_close(two.cpu(), one, **CLOSE)


def test_convert_there() -> None:
    torch.manual_seed(0)
    module = nn.LSTM(3, 5, num_layers=2, bidirectional=True).cuda().eval()
    x = torch.randn(6, 2, 3, device="cuda")
    converted = rnncore.convert(copy.deepcopy(module))
    with torch.no_grad():
        torch.testing.assert_close(converted(x)[0], module(x)[0], **CLOSE)


def test_a_language_model_trains_there_and_ships(tmp_path: Path) -> None:
    model = new_model(CONFIG, 1)
    Trainer(model, VOCABULARY, CORPUS, SETTINGS, device="cuda", checkpoint=tmp_path / "c.pt").run()
    assert next(model.parameters()).is_cuda
    export_model(model, tmp_path / "m.onnx", vocabulary=VOCABULARY)
    again = Trainer.resume(Checkpoint.load(tmp_path / "c.pt"), CORPUS, checkpoint=tmp_path / "c.pt", device="cuda")
    again.run()


@pytest.fixture
def _accelerate_chooses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_accelerate_chooses")
def test_fit_trains_there(tmp_path: Path) -> None:
    model = Tagger()
    report = fit(model, TRAINING, HELD_OUT, collate=collate, epochs=3, batch=8, learning_rate=0.02)
    assert report.best.held_out_loss < report.epochs[0].held_out_loss
    assert next(model.parameters()).is_cuda
    held_out = collate(HELD_OUT)
    export(model, tmp_path / "m.onnx", (held_out["x"].nan_to_num(), held_out["lengths"]))
