"""``export_model``: a ready model, with all that its torch-free class needs, as one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rnncore.export.capture.source_lines import line_of_exception
from rnncore.export.exporter import ExportReport, export
from rnncore.export.loops.forms import Form
from rnncore.models.task_model import TaskModel
from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import ExportError, InputError
from rnncore.runtime.tasks.task import TOKENIZER_KEY
from rnncore.runtime.text.vocabulary import Vocabulary


@only_own_errors(ExportError, "the export", line_of_exception)
def export_model(
    model: TaskModel,
    path: str | Path,
    *,
    vocabulary: Vocabulary | None = None,
    form: Form = "loop",
    streaming: bool | Literal["auto"] | None = None,
    verify: bool = True,
    metadata: Mapping[str, str] | None = None,
    seed: int = 0,
) -> ExportReport:
    """Write a tagger, classifier, rater, embedder, generator or recogniser for its class in :mod:`rnncore.runtime`.

    The file carries the task and the labels, and the tokenizer where there is one, so that its class needs nothing else.

    Args:
        model: one of ``rnncore.models``.
        path: file to write.
        vocabulary: of a model of token ids, so that the file reads text.
        streaming: None: required if the model streams by its making; otherwise as for :func:`rnncore.export.export`.
        form, verify, metadata, seed: as for :func:`rnncore.export.export`.

    Raises:
        InputError: the vocabulary is not that of the model, or the model is none of these.
        ExportError: as for :func:`rnncore.export.export`.
    """
    if not isinstance(model, TaskModel):
        raise InputError(
            f"model is a {type(model).__name__}, expected one of rnncore.models; others: rnncore.export.export"
        )
    known = model.reader.config.vocabulary_size
    entries = {**(metadata or {}), **model.file_metadata()}
    if vocabulary is not None:
        if known != len(vocabulary):
            reads = "floats" if known is None else f"ids of {known} tokens"
            raise InputError(f"the vocabulary has {len(vocabulary)} tokens, the model reads {reads}")
        entries[TOKENIZER_KEY] = vocabulary.to_json()
    if streaming is None:
        streaming = True if model.streams and verify else "auto"
    return export(
        model,
        path,
        model.example_inputs(),
        form=form,
        streaming=streaming,
        verify=verify,
        output_names=[model.output_name],
        metadata=entries,
        seed=seed,
    )
