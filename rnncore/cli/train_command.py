"""``rnncore train``: from a text file to a verified model file."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rnncore.cli.console import AsJson, messages, output, reports_errors, tell, was_given
from rnncore.runtime.errors import MissingExtraError

# Fixed by the first run; a resumed one takes them from its checkpoint.
_FIXED = {
    "texts": "--texts",
    "held_out": "--held-out",
    "tokens": "--tokens",
    "vocabulary_size": "--vocabulary-size",
    "lowercase": "--lowercase",
    "adaptive": "--adaptive",
    "ngrams": "--ngrams",
    "cell": "--cell",
    "layers": "--layers",
    "hidden": "--hidden",
    "embedding": "--embedding",
    "dropout": "--dropout",
    "tied": "--tied",
    "bptt": "--bptt",
    "batch": "--batch",
    "lr": "--lr",
    "seed": "--seed",
    "patience": "--patience",
    "compiled": "--compile",
}


@reports_errors
def train(
    context: typer.Context,
    corpus: Annotated[
        Path | None,
        typer.Argument(help="UTF-8 text, - for standard input; without one, English prose that comes with Python."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Model file to write; the checkpoint lies beside it as .pt.")] = Path(
        "model.onnx"
    ),
    texts: Annotated[str, typer.Option(help="What is one text: a paragraph, a line or the whole file.")] = "paragraph",
    held_out: Annotated[float, typer.Option(help="Fraction of the corpus that is only scored.")] = 0.05,
    tokens: Annotated[str, typer.Option(help="What is one token: characters, words or subwords.")] = "characters",
    vocabulary_size: Annotated[
        int | None,
        typer.Option(help="Most words [default: 10000] or subwords [default: 2000].", show_default=False),
    ] = None,
    lowercase: Annotated[
        bool, typer.Option("--lowercase", help="Read capitals as small letters, in the exported file as well.")
    ] = False,
    cell: Annotated[
        str, typer.Option(help="Cell of all layers, or one for each, bottom first: gru-before,peephole-lstm,rnn-relu.")
    ] = "lstm",
    layers: Annotated[
        int | None, typer.Option(help="Layers, when --cell names one.  [default: 2, of words 1]", show_default=False)
    ] = None,
    hidden: Annotated[
        int | None, typer.Option(help="Features of each layer's state.  [default: 256]", show_default=False)
    ] = None,
    embedding: Annotated[
        int | None, typer.Option(help="Features of one token.  [default: 64, of words 256]", show_default=False)
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(
            help="Probability of zeroing a feature while training.  [default: 0.1, of words 0.5 or 0.3]",
            show_default=False,
        ),
    ] = None,
    tied: Annotated[
        bool | None,
        typer.Option(
            "--tied/--untied",
            help="Share weights of embedding and head; needs equal sizes.  [default: for words, where sizes are equal]",
            show_default=False,
        ),
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Adaptive softmax: trains large vocabularies faster.")
    ] = False,
    ngrams: Annotated[
        int | None,
        typer.Option(
            help="Mix in counted n-grams of up to so many tokens, 0 for none: a better model of a small corpus, a larger file.  "
            "[default: 10, of words 5; of over 3 million tokens 0]",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Most passes over the corpus.  [default: 2 to 16, more for less text]", show_default=False),
    ] = None,
    bptt: Annotated[
        int | None,
        typer.Option(help="Time steps that gradients flow back.  [default: 64, of words 32]", show_default=False),
    ] = None,
    batch: Annotated[int, typer.Option(help="Rows read side by side.")] = 16,
    lr: Annotated[
        float | None,
        typer.Option(help="Peak learning rate of AdamW.  [default: 0.008, of words 0.006]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights and dropout.")] = 1,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop when so many epochs gained nothing on held-out text; keep the best.  [default: 3]",
            show_default=False,
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the steps of cells without a fused kernel: trains faster; needs a C++ compiler."
        ),
    ] = False,
    log_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for CSV, a learning curve and TensorBoard events.", show_default=False),
    ] = None,
    form: Annotated[str, typer.Option(help="The loop in the file: loop or scan.")] = "loop",
    quantize: Annotated[
        str | None,
        typer.Option(
            help="int8: weights of a quarter of the size (n-grams stay), with what that costs on held-out text."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    save_every: Annotated[float, typer.Option(help="Seconds between checkpoints, besides one an epoch.")] = 60.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint beside --out.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew even if an unfinished checkpoint is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a language model, export it, verify the file, and show what it does.

    Ctrl-C saves a checkpoint and stops; --resume goes on as if nothing had happened.
    """
    _prepare_torch()
    from rnncore.cli import train_setup
    from rnncore.cli.train_defaults import warnings_of
    from rnncore.cli.train_summary import Summary
    from rnncore.training import TrainingInterrupted
    from rnncore.training.progress import TrainProgress

    train_setup.check_export(form, quantize)
    checkpoint = train_setup.checkpoint_beside(out)
    console = messages()
    progress = TrainProgress(console)
    running = train_setup.Running(device, save_every, progress, log_dir)
    if resume:
        given = [option for name, option in _FIXED.items() if was_given(context, name)]
        trainer = train_setup.resumed_trainer(checkpoint, corpus, running, given=given, epochs=epochs)
    else:
        train_setup.check_overwrite(checkpoint, restart=restart)
        trainer = train_setup.new_trainer(
            train_setup.Choices(
                corpus,
                texts,
                held_out,
                tuple(cell.split(",")),
                layers,
                hidden,
                embedding,
                dropout,
                tied,
                tokens,
                vocabulary_size,
                adaptive,
                compiled,
                lowercase,
                ngrams,
            ),
            train_setup.Optimisation(epochs, bptt, batch, lr, seed, patience),
            checkpoint,
            running,
        )
    console.print(trainer.describe())
    for warning in warnings_of(trainer):
        console.print(f"warning: {warning}")
    console.print(f"checkpoint: {checkpoint} (Ctrl-C saves it and stops)")
    try:
        history = trainer.run()
    except TrainingInterrupted as interrupted:
        console.print(f"interrupted; everything so far is in {interrupted.checkpoint}")
        console.print(f"go on with: rnncore train --resume --out {out}")
        raise typer.Exit(128 + interrupted.signal_number) from None
    console.print("exporting and verifying")
    accuracy = train_setup.export_model(trainer, out, form, quantize)
    if accuracy:
        console.print(accuracy)
    summary = Summary.of(out, trainer.held_out_texts)
    if as_json:
        tell("", {**summary.to_dict(), "epochs": [asdict(report) for report in history]}, as_json)
    else:
        summary.show(output())


def _prepare_torch() -> None:
    """Import torch in a way that shares the machine, or say which extra to install."""
    # OpenMP threads spin while they wait for each other.  On a machine that does something else as well this made
    # training 10 to 100 times slower (measured on two busy cores); sleeping instead costs nothing that can be seen.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("torch", "train", "rnncore train") from None
