"""What ``rnncore train`` needs before and after the training itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from rnncore.models import CellConfig, LanguageModelConfig
from rnncore.runtime.errors import InputError, MissingExtraError
from rnncore.runtime.language_model import TOKENIZER_KEY
from rnncore.text import Corpus, character_vocabulary, python_corpus, read_corpus
from rnncore.training import Checkpoint, Observer, Trainer, TrainingSettings, new_model


@dataclass(frozen=True)
class Choices:
    """What the user chose about corpus and model; ``corpus`` None is Python's own text."""

    corpus: Path | None
    texts_by: str
    held_out: float
    cells: tuple[str, ...]
    layers: int
    hidden_size: int
    embedding_size: int
    dropout: float
    tied: bool


def check_export(form: str) -> None:
    """Fail before the training, not after it, if exporting cannot work."""
    for package in ("onnx", "onnx_ir", "onnxscript"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "export", "writing the model file")
    if form not in ("loop", "scan"):
        raise InputError(f"--form is {form!r}, expected loop or scan")


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


def new_trainer(
    choices: Choices,
    settings: TrainingSettings,
    checkpoint: Path,
    *,
    device: str,
    save_every_s: float,
    observer: Observer,
) -> Trainer:
    """A trainer at the very beginning."""
    corpus = _corpus(choices.corpus, choices.texts_by)
    vocabulary = character_vocabulary(corpus.texts)
    config = LanguageModelConfig(
        vocabulary_size=len(vocabulary),
        embedding_size=choices.embedding_size,
        cells=_cells(choices),
        dropout=choices.dropout,
        tied=choices.tied,
    )
    return Trainer(
        new_model(config, settings.seed),
        vocabulary,
        corpus,
        settings,
        held_out=choices.held_out,
        checkpoint=checkpoint,
        save_every_s=save_every_s,
        source={
            "corpus": None if choices.corpus is None else str(choices.corpus.resolve()),
            "texts_by": choices.texts_by,
            "held_out": choices.held_out,
        },
        device=device,
        observer=observer,
    )


def resumed_trainer(
    checkpoint: Path,
    corpus: Path | None,
    *,
    given: Sequence[str],
    epochs: int | None,
    device: str,
    save_every_s: float,
    observer: Observer,
) -> Trainer:
    """A trainer that goes on from ``checkpoint``.

    Args:
        checkpoint: the file.
        corpus: where the corpus is now, None for where it was.
        given: options that the user gave although the checkpoint has fixed them.
        epochs: a new total, None for the old one.
        device, save_every_s, observer: as for :class:`rnncore.training.Trainer`.
    """
    if given:
        raise InputError(f"{', '.join(given)}: fixed by the training that --resume goes on with; leave out")
    if not checkpoint.exists():
        raise InputError(f"{checkpoint} does not exist: nothing to resume; leave out --resume to start a training")
    saved = Checkpoint.load(checkpoint)
    if epochs is not None and epochs < saved.position.epoch:
        raise InputError(f"--epochs is {epochs}, but {saved.position.epoch} are done already")
    source = saved.source
    place = corpus if corpus is not None or source["corpus"] is None else Path(source["corpus"])
    return Trainer.resume(
        saved,
        _corpus(place, source["texts_by"]),
        epochs=epochs,
        held_out=source["held_out"],
        checkpoint=checkpoint,
        save_every_s=save_every_s,
        device=device,
        observer=observer,
    )


def export_model(trainer: Trainer, out: Path, form: str) -> None:
    """Write the model with its tokenizer, verified; nothing is written when verification fails."""
    from rnncore.export import export

    model = trainer.model.cpu().eval()
    # The highest and the lowest id: they tell the exporter which ids verification may draw.
    example = torch.tensor([[0, 1, model.config.vocabulary_size - 1], [1, 0, 1]])
    export(
        model,
        out,
        example,
        form=form,  # type: ignore[arg-type]  # checked by check_export
        streaming=True,
        output_names=["log_probs"],
        metadata={TOKENIZER_KEY: trainer.vocabulary.to_json()},
        pick=True,
    )


def _corpus(path: Path | None, texts_by: str) -> Corpus:
    return python_corpus() if path is None else read_corpus(path, texts_by)


def _cells(choices: Choices) -> tuple[CellConfig, ...]:
    if choices.layers < 1:
        raise InputError(f"--layers is {choices.layers}, expected at least 1")
    names = choices.cells * choices.layers if len(choices.cells) == 1 else choices.cells
    return tuple(CellConfig.named(name.strip(), choices.hidden_size) for name in names)
