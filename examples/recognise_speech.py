"""Write down what one speaker says, letter by letter (CTC): python examples/recognise_speech.py

Trains a network of one direction on telephone prompts: mel bands to letters, the time of each letter unknown.  Exports it,
and recognises with the file, without PyTorch, by the likeliest letters and by beam search, and one prompt as it is spoken:
wave to bands, bands to letters, text while it goes on.  A quarter of an hour of speech is far from enough for a real
recogniser: the prompts are of one speaker and one kind.
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path

import torch
from datasets import recordings, split

from rnncore import CellConfig, ReaderConfig, Recogniser, runtime
from rnncore.export import export_model
from rnncore.training import fit

LONGEST_S, CHUNK_S = 6.0, 0.4


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
    mel = runtime.LogMel(spoken[0][1], stacked=3)
    training, held_out = split([(mel(samples), text) for samples, _, text in spoken])

    torch.manual_seed(0)
    cells = (CellConfig.named(arguments.cell, arguments.hidden),) * 2
    config = ReaderConfig(cells, features=mel.features, dropout=0.2)
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
    samples, rate, _ = spoken[4]  # the first of those that were held out
    wave, chunk = mel.stream(), round(CHUNK_S * rate)
    with recogniser.beam_stream(16) as stream:
        for start in range(0, len(samples), chunk):
            print(f"after {(start + chunk) / rate:.1f} s: {stream.push(wave.push(samples[start : start + chunk]))}")
        found = stream.finish()
    ms = mel.step_ms * mel.stacked
    print(f"in the end: {found.text!r}:", ", ".join(f"{one.label} {one.start * ms:.0f} ms" for one in found.labels))
    assert found.text == recogniser.recognise(held_out[0][0], beams=16)


if __name__ == "__main__":
    main()
