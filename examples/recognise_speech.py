"""Write down what one speaker says, letter by letter (CTC): python examples/recognise_speech.py

Trains a network on telephone prompts: mel bands to letters, the time of each letter unknown.  Exports it, and recognises
with the file, without PyTorch, by the likeliest letters and by beam search.  A quarter of an hour of speech is far from
enough for a real recogniser: the prompts are of one speaker and one kind.
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path

import numpy as np
import torch
from datasets import recordings, split

from rnncore import CellConfig, ReaderConfig, Recogniser, runtime
from rnncore.export import export_model
from rnncore.training import fit

BANDS, STEP_S, WINDOW_S, STACKED, LONGEST_S = 40, 0.010, 0.025, 3, 6.0


def mel_bands(samples: np.ndarray, rate: int) -> np.ndarray:
    """Logarithms of the energy in mel bands, float32 [frames, BANDS * STACKED]: a frame has STACKED steps."""
    step, window = round(STEP_S * rate), round(WINDOW_S * rate)
    samples = np.pad(samples, (0, max(0, window + STACKED * step - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::step] * np.hanning(window)
    energy = np.abs(np.fft.rfft(frames, 256)) ** 2
    mels = np.linspace(0, 2595 * np.log10(1 + rate / 1400), BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    places = np.fft.rfftfreq(256, 1 / rate)[:, None]
    rising = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places) / (edges[2:] - edges[1:-1])
    bands = np.log(energy @ np.maximum(0, np.minimum(rising, falling)) + 1e-6)
    return bands[: len(bands) // STACKED * STACKED].reshape(-1, BANDS * STACKED).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="a folder of recordings and their texts; fetched through apt unless given"
    )
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("runs/speech.onnx"))
    arguments = parser.parse_args()
    spoken = [one for one in recordings(arguments.data) if len(one[0]) <= LONGEST_S * one[1]]
    training, held_out = split([(mel_bands(samples, rate), text) for samples, rate, text in spoken])

    torch.manual_seed(0)
    cells = (CellConfig.named(arguments.cell, arguments.hidden),) * 2
    config = ReaderConfig(cells, features=BANDS * STACKED, bidirectional=True, dropout=0.2)
    model = Recogniser(config, [*string.ascii_lowercase, " ", "'"])
    model.reader.standardise(frames for frames, _ in training)
    report = fit(
        model, training, held_out, collate=model.collate, epochs=arguments.epochs, batch=8, learning_rate=3e-3, clip=5.0
    )
    print(f"PyTorch: {report.best.metrics['label_error']:.1%} letters wrong in {len(held_out)} held-out prompts")

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_model(model, arguments.out))
    recogniser = runtime.Recogniser.load(arguments.out)
    letters = sum(len(text) for _, text in held_out)
    for beams in (None, 16):
        heard = recogniser.recognise_many([frames for frames, _ in held_out], beams=beams)
        edits = sum(runtime.edit_distance(got, text) for got, (_, text) in zip(heard, held_out, strict=True))
        print(f"the file, {f'{beams} beams' if beams else 'likeliest letters'}: {edits / letters:.1%} letters wrong")
        if beams is None:
            assert abs(edits / letters - report.best.metrics["label_error"]) < 1e-3
    for got, (_, text) in list(zip(heard, held_out, strict=True))[:5]:
        print(f"  said: {text}\n heard: {got}")


if __name__ == "__main__":
    main()
