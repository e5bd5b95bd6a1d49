"""Models that write, exported once a process: a language model with <unk>, and encoder-decoders."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

from rnncore import CellConfig, EncoderDecoder, EncoderDecoderConfig, LanguageModel, LanguageModelConfig
from rnncore.export import export, export_generator, export_translator
from rnncore.export.decoding import translator as translator_module
from rnncore.export.decoding.traced_parts import EncoderAndDecoder, trace_encoder_and_decoder
from rnncore.runtime import LanguageModel as RuntimeLanguageModel
from rnncore.runtime import Model, TextGenerator, Translator
from rnncore.runtime.text.language_model import TOKENIZER_KEY
from rnncore.runtime.text.special_tokens import UNK
from rnncore.runtime.text.vocabulary import Vocabulary

WORDS = ("<eos>", UNK, "the", "apple", "and", "pear", "salad", "of", "a", "red", "moon")
END, UNKNOWN = 0, 1
MAX_TOKENS = 13


@cache
def vocabulary() -> Vocabulary:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<eos>", UNK])
    return Vocabulary(tokenizer)


def randomize(module: nn.Module, seed: int, spread: float = 0.7) -> None:
    """Weights so large that every history has an answer of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)


@cache
def torch_model() -> LanguageModel:
    cells = (CellConfig.named("peephole-lstm", 11), CellConfig.named("gru-before", 7))
    model = LanguageModel(LanguageModelConfig(len(WORDS), 5, cells)).eval()
    randomize(model, 5)
    for layer in model.stack.layers:  # a start that is not zero
        layer.cell.learn_initial_state = True  # type: ignore[union-attr, assignment]
        for name, size in layer.cell.state_sizes.items():  # type: ignore[union-attr]
            layer.cell.register_parameter(f"initial_{name}", nn.Parameter(torch.linspace(-1, 1, size)))  # type: ignore[union-attr]
    return model


@cache
def streaming_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.onnx"
        metadata = {TOKENIZER_KEY: vocabulary().to_json()}
        example = torch.tensor([[0, 1, len(WORDS) - 1], [1, 0, 1]])
        export(torch_model(), path, example, streaming=True, lengths=True, pick=True, metadata=metadata)
        return path.read_bytes()


@cache
def step_by_step() -> RuntimeLanguageModel:
    return RuntimeLanguageModel.load(streaming_file())


@cache
def generator_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generator.onnx"
        export_generator(streaming_file(), path)
        return path.read_bytes()


@cache
def generator() -> TextGenerator:
    return TextGenerator.load(generator_file())


def filled(model: Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a host that knows docs/format.md feeds: what was left out at its default, one number for each row."""
    batch = len(feeds["lengths"])
    ports = {port.name: port for port in model.signature.inputs}
    for option in model.signature.options:
        rest = [size if isinstance(size, int) else 1 for size in ports[option.name].shape[1:]]
        default = np.full([batch, *rest], option.default, ports[option.name].dtype)
        feeds = {option.name: default} | feeds
    return feeds


ARCHITECTURES: dict[str, EncoderDecoderConfig] = {
    "no attention, states handed over": EncoderDecoderConfig(
        7, 5, (CellConfig.named("lstm", 11),), (CellConfig.named("peephole-lstm", 11),), 3,
        bidirectional=False, attention=None, bridge="identity",
    ),
    "general": EncoderDecoderConfig(
        7, 5, (CellConfig.named("gru", 11),), (CellConfig.named("peephole-lstm", 13),), 3, attention="general", end_id=2
    ),
    "additive, two layers": EncoderDecoderConfig(
        7, 5, (CellConfig.named("peephole-lstm", 5), CellConfig.named("gru-before", 3)),
        (CellConfig.named("gru", 11), CellConfig("lstm", 13, {"projection": 5})), 3, attention="additive",
    ),
    "dot": EncoderDecoderConfig(7, 5, (CellConfig.named("rnn", 11),), (CellConfig.named("mingru", 22),), 3, attention="dot"),
}  # fmt: skip


# Seeds for which targets differ from source to source, and most of them end.
SEEDS = {"no attention, states handed over": 13, "general": 13, "additive, two layers": 12, "dot": 13}


@cache
def encoder_decoder(name: str) -> EncoderDecoder:
    model = EncoderDecoder(ARCHITECTURES[name]).eval()
    randomize(model, SEEDS[name], spread=0.9)
    return model


@cache
def halves(name: str) -> EncoderAndDecoder:
    """What torch's exporter gave, which takes most of the time of an export."""
    return trace_encoder_and_decoder(encoder_decoder(name), "loop")


@cache
def translator_file(name: str) -> bytes:
    own = mock.patch.object(translator_module, "trace_encoder_and_decoder", lambda *_: halves(name))
    with tempfile.TemporaryDirectory() as folder, own:
        path = Path(folder) / "translator.onnx"
        export_translator(encoder_decoder(name), path)
        return path.read_bytes()


@cache
def translator(name: str) -> Translator:
    return Translator.load(translator_file(name))
