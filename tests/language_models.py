"""Small language models for tests: random weights, mixed cells, exported once a process."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch

from rnncore import CellConfig, LanguageModel, LanguageModelConfig
from rnncore.export import export
from rnncore.runtime import LanguageModel as RuntimeLanguageModel
from rnncore.runtime.text.language_model import TOKENIZER_KEY
from rnncore.text import Vocabulary, character_vocabulary

CHARACTERS = "abcdeé中\n <>os."
DEPTH = 4  # embedding, two layers, head


@cache
def vocabulary() -> Vocabulary:
    return character_vocabulary([CHARACTERS])


@cache
def torch_model() -> LanguageModel:
    """Confident enough that a wrong history changes the answers, and different at every step."""
    torch.manual_seed(5)
    cells = (CellConfig.named("peephole-lstm", 11), CellConfig.named("gru-before", 7))
    model = LanguageModel(LanguageModelConfig(len(vocabulary()), 5, cells)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.7)
    return model


@cache
def model_file() -> bytes:
    """The file of :func:`torch_model`."""
    return exported(torch_model(), vocabulary())


@cache
def runtime_model() -> RuntimeLanguageModel:
    return RuntimeLanguageModel.load(model_file())


@cache
def model_file_without_pick() -> bytes:
    """The same, of which only whole vocabularies can be asked, as older files."""
    return exported(torch_model(), vocabulary(), pick=False)


def exported(model: torch.nn.Module, tokens: Vocabulary | None, *, streaming: bool = True, pick: bool = True) -> bytes:
    """The file of any model of token ids, with a tokenizer or without."""
    metadata = {} if tokens is None else {TOKENIZER_KEY: tokens.to_json()}
    example = torch.tensor([[0, 1, len(vocabulary()) - 1], [1, 0, 1]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(model, path, example, streaming=streaming, metadata=metadata, pick=pick)
        return path.read_bytes()
