"""What ``rnncore train`` needs before and after the training itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import torch

from rnncore.cli.console import STDIN, text_argument
from rnncore.cli.train_defaults import PATIENCE, Defaults, defaults_for
from rnncore.layers import compile_steps
from rnncore.models import CellConfig, InterpolatedLanguageModel, LanguageModel, LanguageModelConfig
from rnncore.models.language_model_head import default_cutoffs
from rnncore.runtime.errors import InputError, MissingExtraError
from rnncore.runtime.text.language_model import TOKENIZER_KEY
from rnncore.runtime.text.vocabulary import Vocabulary
from rnncore.text import (
    Corpus,
    character_vocabulary,
    corpus_of,
    python_corpus,
    read_corpus,
    subword_vocabulary,
    word_vocabulary,
)
from rnncore.training import Checkpoint, Observer, Trainer, TrainingSettings, interpolate, new_model

TOKENS = ("characters", "words", "subwords")
ACCURACY_TOKENS = 20_000  # held-out tokens on which the cost of int8 is measured


@dataclass(frozen=True)
class Choices:
    """What the user chose about corpus and model; ``corpus`` None is Python's own text, other None are for the defaults."""

    corpus: Path | None
    texts_by: str
    held_out: float
    cells: tuple[str, ...]
    layers: int | None
    hidden_size: int | None
    embedding_size: int | None
    dropout: float | None
    tied: bool | None
    tokens: str = "characters"
    vocabulary_size: int | None = None
    adaptive: bool = False
    compiled: bool = False
    lowercase: bool = False
    ngrams: int | None = None


def check_export(form: str, quantize: str | None = None) -> None:
    """Fail before the training, not after it, if exporting cannot work."""
    for package in ("onnx", "onnx_ir", "onnxscript"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "export", "writing the model file")
    if form not in ("loop", "scan"):
        raise InputError(f"--form is {form!r}, expected loop or scan")
    if quantize not in (None, "int8"):
        raise InputError(f"--quantize is {quantize!r}, expected int8")


def checkpoint_beside(out: Path) -> Path:
    """Where the checkpoint of a model file lies; makes the folder."""
    if out.suffix != ".onnx":
        raise InputError(f"--out is {str(out)!r}, expected a name that ends in .onnx")
    if out.is_dir():
        raise InputError(f"--out is {str(out)!r}, which is a folder, expected the name of a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.with_suffix(".pt")


def check_overwrite(checkpoint: Path, *, restart: bool) -> None:
    """Refuse to throw away a training that is not finished, unless told to."""
    if restart or not checkpoint.exists():
        return
    saved = Checkpoint.load(checkpoint)
    if not saved.is_finished:
        raise InputError(
            f"{checkpoint} holds a training stopped in epoch {saved.position.epoch + 1} of {saved.settings.epochs}: "
            "go on with --resume, or throw it away with --restart"
        )


@dataclass(frozen=True)
class Optimisation:
    """What the user chose about the training; None for the defaults."""

    epochs: int | None = None
    bptt: int | None = None
    batch: int = 16
    learning_rate: float | None = None
    seed: int = 1
    patience: int | None = None

    def settings(self, defaults: Defaults) -> TrainingSettings:
        """With the defaults where nothing was chosen."""
        return TrainingSettings(
            epochs=_or(self.epochs, defaults.epochs),
            batch=self.batch,
            bptt=_or(self.bptt, defaults.bptt),
            learning_rate=_or(self.learning_rate, defaults.learning_rate),
            seed=self.seed,
            patience=_or(self.patience, PATIENCE),
        )


@dataclass(frozen=True)
class Running:
    """What may differ from one start of a training to the next, as for :class:`rnncore.training.Trainer`."""

    device: str
    save_every_s: float
    observer: Observer
    log_dir: Path | None = None


def new_trainer(choices: Choices, optimisation: Optimisation, checkpoint: Path, running: Running) -> Trainer:
    """A trainer at the very beginning."""
    corpus = _corpus(choices.corpus, choices.texts_by)
    vocabulary = _vocabulary(choices, corpus)
    tokens = sum(len(vocabulary.encode(text)) + 1 for text in corpus.split(choices.held_out).training)
    defaults = defaults_for(choices.tokens, tokens)
    settings = optimisation.settings(defaults)
    config = _config(choices, defaults, len(vocabulary))
    trainer = Trainer(
        new_model(config, settings.seed),
        vocabulary,
        corpus,
        settings,
        held_out=choices.held_out,
        checkpoint=checkpoint,
        save_every_s=running.save_every_s,
        source={
            "corpus": _source(choices.corpus),
            "texts_by": choices.texts_by,
            "held_out": choices.held_out,
            "log_dir": None if running.log_dir is None else str(running.log_dir.resolve()),
            "compiled": choices.compiled,
            "ngrams": _ngrams(choices, defaults),
        },
        device=running.device,
        observer=running.observer,
        log_dir=running.log_dir,
    )
    return _compiled(trainer, choices.compiled)


def resumed_trainer(
    checkpoint: Path,
    corpus: Path | None,
    running: Running,
    *,
    given: Sequence[str],
    epochs: int | None,
) -> Trainer:
    """A trainer that goes on from ``checkpoint``.

    Args:
        checkpoint: the file.
        corpus: where the corpus is now, None for where it was.
        running: its ``log_dir`` is where to log from now on, None for where it was.
        given: options that the user gave although the checkpoint has fixed them.
        epochs: a new total, None for the old one.
    """
    if given:
        raise InputError(f"{', '.join(given)}: fixed by the training that --resume goes on with; leave out")
    if not checkpoint.exists():
        raise InputError(f"{checkpoint} does not exist: nothing to resume; leave out --resume to start a training")
    saved = Checkpoint.load(checkpoint)
    if epochs is not None and epochs < saved.position.epoch:
        raise InputError(f"--epochs is {epochs}, but {saved.position.epoch} are done already")
    source = saved.source
    if corpus is None and source["corpus"] == STDIN:
        raise InputError("the corpus came from standard input: hand it in again, rnncore train - --resume < FILE")
    place = corpus if corpus is not None or source["corpus"] is None else Path(source["corpus"])
    trainer = Trainer.resume(
        saved,
        _corpus(place, source["texts_by"]),
        epochs=epochs,
        held_out=source["held_out"],
        checkpoint=checkpoint,
        save_every_s=running.save_every_s,
        device=running.device,
        observer=running.observer,
        log_dir=running.log_dir or source["log_dir"],
    )
    return _compiled(trainer, source.get("compiled", False))  # checkpoints of earlier versions say nothing


def _compiled(trainer: Trainer, wanted: bool) -> Trainer:
    if wanted:
        compile_steps(trainer.model)
    return trainer


def export_model(trainer: Trainer, out: Path, form: str, quantize: str | None = None) -> str:
    """Write the model with its tokenizer, verified; nothing is written when verification fails.

    Returns what int8 costs on held-out text, empty in full precision.
    """
    from rnncore.export import export

    model = mixed_model(trainer)
    # The highest and the lowest id: they tell the exporter which ids verification may draw.
    example = torch.tensor([[0, 1, model.config.vocabulary_size - 1], [1, 0, 1]])
    report = export(
        model,
        out,
        example,
        form=form,  # type: ignore[arg-type]  # checked by check_export
        quantize=quantize,  # type: ignore[arg-type]  # checked by check_export
        accuracy_data=_held_out_ids(trainer) if quantize else None,
        streaming=True,
        output_names=["log_probs"],
        metadata={TOKENIZER_KEY: trainer.vocabulary.to_json()},
        pick=True,
        # What n-grams look back on is not held at the end of a shorter row.
        lengths="auto" if isinstance(model, LanguageModel) else False,
    )
    return str(report.accuracy or "")


def mixed_model(trainer: Trainer) -> LanguageModel | InterpolatedLanguageModel:
    """The trained model, with counted n-grams mixed in unless the user wanted none."""
    model, vocabulary = trainer.model.cpu().eval(), trainer.vocabulary
    order = trainer.source.get("ngrams", 0)  # checkpoints of earlier versions have none
    if not order:
        return model
    texts = (trainer.training_texts, trainer.held_out_texts)
    training, held_out = ([vocabulary.encode(text) for text in part] for part in texts)
    return interpolate(model, training, held_out, eos_id=vocabulary.eos_id, order=order)


def _held_out_ids(trainer: Trainer) -> list[torch.Tensor] | None:
    """Held-out texts as ids [1, time], as the model reads them; None when nothing is held out."""
    texts, tokens = [], 0
    for text in trainer.held_out_texts:
        if tokens < ACCURACY_TOKENS:
            texts.append(torch.tensor([[trainer.vocabulary.eos_id, *trainer.vocabulary.encode(text)]]))
            tokens += texts[-1].shape[1]
    return texts or None


def _source(path: Path | None) -> str | None:
    """Where a resumed training finds its corpus."""
    return None if path is None else STDIN if str(path) == STDIN else str(path.resolve())


def _corpus(path: Path | None, texts_by: str) -> Corpus:
    if path is None:
        return python_corpus()
    return (
        corpus_of("standard input", text_argument(STDIN), texts_by)
        if str(path) == STDIN
        else read_corpus(path, texts_by)
    )


def _vocabulary(choices: Choices, corpus: Corpus) -> Vocabulary:
    """Of the kind of tokens that was chosen; words and their pieces are counted in the training texts only."""
    if choices.tokens not in TOKENS:
        raise InputError(f"--tokens is {choices.tokens!r}, expected one of: {', '.join(TOKENS)}")
    size = choices.vocabulary_size
    if choices.tokens == "characters":
        if size is not None:
            raise InputError(
                "--vocabulary-size: characters are all taken; leave out, or choose --tokens words or subwords"
            )
        return character_vocabulary(corpus.texts, lowercase=choices.lowercase)
    texts = corpus.split(choices.held_out).training
    sized = {} if size is None else {"size": size}
    if choices.tokens == "subwords":
        return subword_vocabulary(texts, **sized, lowercase=choices.lowercase)
    # A word that occurs once tells nothing about itself, but together they tell what unknown words are like.
    return word_vocabulary(texts, **sized, least_count=2, lowercase=choices.lowercase)


def _config(choices: Choices, defaults: Defaults, vocabulary_size: int) -> LanguageModelConfig:
    cells = _cells(choices, defaults)
    embedding_size = _or(choices.embedding_size, defaults.embedding)
    can_tie = not choices.adaptive and cells[-1].build(1).output_size == embedding_size
    return LanguageModelConfig(
        vocabulary_size=vocabulary_size,
        embedding_size=embedding_size,
        cells=cells,
        dropout=_or(choices.dropout, defaults.dropout),
        tied=_or(choices.tied, defaults.tied and can_tie),
        cutoffs=default_cutoffs(vocabulary_size) if choices.adaptive else (),
    )


def _ngrams(choices: Choices, defaults: Defaults) -> int:
    order = _or(choices.ngrams, defaults.ngrams)
    if order < 0 or order == 1:
        raise InputError(f"--ngrams is {order}, expected at least 2 tokens, or 0 for none")
    return order


def _cells(choices: Choices, defaults: Defaults) -> tuple[CellConfig, ...]:
    layers = _or(choices.layers, defaults.layers)
    if layers < 1:
        raise InputError(f"--layers is {layers}, expected at least 1")
    names = choices.cells * layers if len(choices.cells) == 1 else choices.cells
    return tuple(CellConfig.named(name.strip(), _or(choices.hidden_size, defaults.hidden)) for name in names)


Value = TypeVar("Value")


def _or(chosen: Value | None, default: Value) -> Value:
    return default if chosen is None else chosen
