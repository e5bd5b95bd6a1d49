"""Decoders that loop over the second of two sequences: that one is the file's time, and the first an axis of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncore import runtime
from rnncore.export import export
from tests.tolerances import fixed


class Translator(nn.Module):
    """As tutorials write it: steps first, and the first step of the result stays zero."""

    def __init__(self, taught: bool) -> None:
        super().__init__()
        self.source, self.encoder = nn.Embedding(11, 5), nn.GRU(5, 6)
        self.target, self.decoder, self.out = nn.Embedding(12, 5), nn.GRU(5, 6), nn.Linear(6, 12)
        self.taught = taught

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        steps, batch = trg.shape
        outputs = torch.zeros(steps, batch, 12)
        _, h = self.encoder(self.source(src))
        symbol = trg[0, :]
        for t in range(1, steps):
            y, h = self.decoder(self.target(symbol)[None], h)
            outputs[t] = self.out(y[0])
            symbol = trg[t] if self.taught else outputs[t].argmax(1)
        return outputs


class Attending(nn.Module):
    """Batch first, with attention to the whole first sequence, and a context that is fed back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.cell, self.out = nn.GRU(4, 6, batch_first=True), nn.GRUCell(5 + 6, 6), nn.Linear(12, 7)
        self.table = nn.Embedding(9, 5)

    def forward(self, frames: Tensor, labels: Tensor) -> Tensor:
        memory, _ = self.encoder(frames)
        h, context, outputs = memory[:, -1], memory.new_zeros(memory.shape[0], 6), []
        for t in range(labels.shape[1]):
            h = self.cell(torch.cat([self.table(labels[:, t]), context], 1), h)
            weights = torch.softmax((memory * h[:, None]).sum(-1), 1)
            context = (weights[..., None] * memory).sum(1)
            outputs.append(self.out(torch.cat([h, context], 1)))
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("taught", [True, False])
def test_a_decoder_over_the_second_sequence(taught: bool, tmp_path: Path) -> None:
    module = Translator(taught).eval()
    example = (torch.randint(0, 11, (9, 2)), torch.randint(0, 12, (7, 2)))
    report = export(module, tmp_path / "m.onnx", example)
    assert [spec.shape for spec in report.signature.inputs] == [("src", "batch"), ("time", "batch")]
    assert "'time'; the other one is 'src'" in str(report)
    model = runtime.load(report.path)
    for batch, source, target in ((1, 1, 1), (1, 12, 2), (3, 4, 20)):
        src, trg = torch.randint(0, 11, (source, batch)), torch.randint(0, 12, (target, batch))
        with torch.no_grad():
            expected = module(src, trg).numpy()
        np.testing.assert_allclose(model.run(src.numpy(), trg.numpy()), expected, atol=fixed("float32"))


def test_attention_to_the_first_sequence(tmp_path: Path) -> None:
    module = Attending().eval()
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 13, 4), torch.randint(0, 9, (2, 6))))
    model = runtime.load(report.path)
    for batch, source, target in ((1, 3, 1), (3, 20, 4), (2, 5, 30)):
        frames, labels = torch.randn(batch, source, 4), torch.randint(0, 9, (batch, target))
        with torch.no_grad():
            expected = module(frames, labels).numpy()
        np.testing.assert_allclose(model.run(frames.numpy(), labels.numpy()), expected, atol=fixed("float32"))


class Forecast(nn.Module):
    """A history of fixed length, then as many steps as there are entries, of which the first alone is read."""

    def __init__(self, parts: str) -> None:
        super().__init__()
        self.cell, self.out, self.parts = nn.GRUCell(4, 6), nn.Linear(6, 4), parts

    def forward(self, history: Tensor, entries: Tensor) -> Tensor:
        h = torch.zeros(history.shape[0], 6)
        for t in range(5):
            h = self.cell(history[:, t], h)
        steps = entries.unbind(1) if self.parts == "unbind" else [x[:, 0] for x in entries.split(1, 1)]
        steps = entries.transpose(0, 1) if self.parts == "iterated" else steps
        outputs: list[Tensor] = []
        for t, x in enumerate(steps):
            h = self.cell(outputs[-1] if t else x, h)
            outputs.append(x + self.out(h) if t == 0 else outputs[-1] + self.out(h))
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("parts", ["unbind", "split", "iterated"])
def test_the_first_of_a_list_of_any_length(parts: str, tmp_path: Path) -> None:
    module = Forecast(parts).eval()
    report = export(module, tmp_path / "m.onnx", (torch.randn(2, 5, 4), torch.randn(2, 7, 4)))
    model = runtime.load(report.path)
    for batch, steps in ((1, 1), (3, 20)):
        history, entries = torch.randn(batch, 5, 4), torch.randn(batch, steps, 4)
        with torch.no_grad():
            expected = module(history, entries).numpy()
        np.testing.assert_allclose(model.run(history.numpy(), entries.numpy()), expected, atol=fixed("float32"))
