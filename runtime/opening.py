"""``open``: a file as the class that it was made for."""

from __future__ import annotations

import os
from typing import Any

from rnncore.runtime.errors import ModelFileError
from rnncore.runtime.model import Model, load
from rnncore.runtime.tasks.classifier import Classifier
from rnncore.runtime.tasks.embedder import Embedder
from rnncore.runtime.tasks.generator import Generator
from rnncore.runtime.tasks.rater import Rater
from rnncore.runtime.tasks.recogniser import Recogniser
from rnncore.runtime.tasks.tagger import Tagger
from rnncore.runtime.tasks.task import TASK_KEY, TOKENIZER_KEY
from rnncore.runtime.text.generation import GENERATION_KEY, TextGenerator
from rnncore.runtime.text.language_model import LanguageModel
from rnncore.runtime.text.translator import TRANSLATION_KEY, Translator

TASKS = {kind.task: kind for kind in (Classifier, Embedder, Generator, Rater, Recogniser, Tagger)}


def open(source: str | os.PathLike[str] | bytes, **options: Any) -> Any:
    """Load a file as what it is: a Tagger, Classifier, Rater, Embedder, Recogniser, Generator, LanguageModel, TextGenerator
    or Translator, or a plain Model where the file says nothing of a task.

    Args:
        source: path of the file, or its bytes.
        options: as for :func:`rnncore.runtime.load`: ``threads``, ``max_steps``, ...

    Raises:
        ModelFileError: as for :func:`rnncore.runtime.load`; or the file is of a task that this version does not know.
        InputError: an option is out of range.
    """
    model = load(source, **options)
    kind = class_of(model)
    return model if kind is Model else kind(model)


def class_of(model: Model) -> type:
    """The class that a loaded file was made for, Model if its metadata name none; ModelFileError for an unknown task."""
    entries = model.metadata
    task = entries.get(TASK_KEY)
    if task is not None:
        if task not in TASKS:
            raise ModelFileError(
                f"the file is of the task {task!r}, this version knows {', '.join(sorted(TASKS))}: install a newer rnncore"
            )
        return TASKS[task]
    if TRANSLATION_KEY in entries:
        return Translator
    if GENERATION_KEY in entries:
        return TextGenerator
    return LanguageModel if TOKENIZER_KEY in entries else Model
