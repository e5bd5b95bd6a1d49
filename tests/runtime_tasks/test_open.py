"""``open`` gives a file the class that it was made for."""

from __future__ import annotations

import pytest

from rnncore import runtime
from tests.language_models import model_file as language_model_file
from tests.runtime.files import Spec, causal_graph, finish, signature
from tests.task_models import MODELS, model_file


@pytest.mark.parametrize("name", MODELS)
def test_a_ready_model_opens_as_its_class(name: str) -> None:
    kind = getattr(runtime, name.partition(",")[0].partition(" ")[0].capitalize())
    opened = runtime.open(model_file(name), threads=2)
    assert type(opened) is kind


def test_other_files_open_as_what_their_metadata_say() -> None:
    opened = runtime.open(language_model_file())
    assert type(opened) is runtime.LanguageModel
    assert repr(opened) == f"<LanguageModel {opened.model!r}>"
    assert type(runtime.open(finish(causal_graph(Spec()), signature(Spec())))) is runtime.Model


def test_a_task_of_the_future_is_refused() -> None:
    data = finish(causal_graph(Spec()), signature(Spec()), task="diariser")
    with pytest.raises(runtime.ModelFileError, match="the task 'diariser'"):
        runtime.open(data)
