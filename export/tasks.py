"""``export_model``: a ready model, with all that its torch-free class needs, as one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from rnncore.export.exporter import export
from rnncore.export.lowering.forms import Form
from rnncore.export.report import ExportReport
from rnncore.export.targets import Target
from rnncore.export.tracing.source_lines import line_of_exception
from rnncore.models.interpolated import InterpolatedLanguageModel
from rnncore.models.language_model import LanguageModel
from rnncore.models.task_model import TaskModel
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import ExportError, InputError
from rnncore.runtime.tasks.task import TOKENIZER_KEY
from rnncore.runtime.text.vocabulary import Vocabulary


@only_own_errors(ExportError, "the export", line_of_exception)
def export_model(
    model: TaskModel | LanguageModel | InterpolatedLanguageModel,
    path: str | Path,
    *,
    vocabulary: Vocabulary | None = None,
    form: Form | Literal["portable", "auto"] = "loop",
    streaming: bool | Literal["auto"] | None = None,
    verify: bool = True,
    metadata: Mapping[str, str] | None = None,
    seed: int = 0,
    quantize: Literal["int8"] | None = None,
    accuracy_data: Sequence[Any] | None = None,
    target: Target | None = None,
    external_data: bool | None = None,
) -> ExportReport:
    """Write a language model, tagger, classifier, rater, embedder, generator or recogniser for its class without PyTorch.

    The classes of :mod:`rnncore.runtime` have the same names.

    The file carries the task and the labels, and the tokenizer where there is one, so that its class needs nothing else.

    Args:
        model: one of ``rnncore.models``.
        path: file to write.
        vocabulary: of a model of token ids, so that the file reads text.
        streaming: None: required if the model streams by its making; otherwise as for :func:`rnncore.export.export`.
        form, verify, metadata, seed, quantize, accuracy_data, target, external_data: as for
            :func:`rnncore.export.export`.

    Raises:
        InputError: the vocabulary is not that of the model, or the model is none of these.
        ExportError: as for :func:`rnncore.export.export`.
    """
    options: dict[str, Any] = {
        "form": form,
        "verify": verify,
        "seed": seed,
        "quantize": quantize,
        "accuracy_data": accuracy_data,
        "target": target,
        "external_data": external_data,
    }
    if isinstance(model, LanguageModel | InterpolatedLanguageModel):
        known: int | None = model.config.vocabulary_size
        entries, streams = dict(metadata or {}), True
        top = model.config.vocabulary_size - 1
        example: Any = torch.tensor([[0, top, top], [top, 0, 0]])
        if isinstance(model, InterpolatedLanguageModel):
            options["lengths"] = False  # what n-grams look back on is not held at the end of a shorter row
        options["pick"] = True  # so that a text is scored without the log-probabilities of all other tokens
    elif isinstance(model, TaskModel):
        known = model.reader.config.vocabulary_size
        entries, streams = {**(metadata or {}), **model.file_metadata()}, model.streams
        example = model.example_inputs()
        options["output_names"] = [model.output_name]
    else:
        raise InputError(
            f"model is a {type(model).__name__}, expected one of rnncore.models; others: rnncore.export.export"
        )
    if vocabulary is not None:
        if known != len(vocabulary):
            reads = "floats" if known is None else f"ids of {known} tokens"
            raise InputError(f"the vocabulary has {len(vocabulary)} tokens, the model reads {reads}")
        entries[TOKENIZER_KEY] = vocabulary.to_json()
    if streaming is None:
        streaming = True if streams and verify else "auto"
    return export(model, path, example, streaming=streaming, metadata=entries, **options)
