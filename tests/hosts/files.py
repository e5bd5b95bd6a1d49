"""Eleven small files with random weights, and what Python answers to them: the material for hosts in other languages."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

import rnncore
from rnncore import CellConfig, EncoderDecoder, EncoderDecoderConfig, LanguageModel, LanguageModelConfig, runtime
from rnncore.export import export, export_generator, export_translator
from rnncore.runtime.format.document import document_of
from rnncore.text import Vocabulary, character_vocabulary, subword_vocabulary, token_vocabulary, word_vocabulary
from tests.hosts.foreign import write_foreign

TEXT = "the cat isn't here, said the dog; the well-known dog sat (on 3 mats)."


class Tagger(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, size: int = 7, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 5)
        self.rnn = kind(5, size, batch_first=True, **options)
        self.head = nn.Linear(size, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(ids))[0])


class BothWays(nn.Module):
    """Words numbered from 1, with two frames for each: sizes and ids that a host has to check."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 5)
        self.rnn = nn.RNN(11, 7, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor, frames: Tensor) -> Tensor:
        pairs = frames.reshape(frames.shape[0], frames.shape[1] // 2, 6)
        return self.rnn(torch.cat((self.embedding(words - 1), pairs), -1))[0]


class Spotter(nn.Module):
    """Streams, two frames a step: what a convolution saw before is a state, and an odd frame waits."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(5, 7, kernel_size=4, stride=2)
        self.rnn = rnncore.LSTM(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        seen = nn.functional.pad(x.transpose(1, 2), (2, 0))
        return self.rnn(torch.relu(self.front(seen)).transpose(1, 2))[0]


class Strided(nn.Module):
    """Every second frame, as acoustic models do it, without padding: a stream keeps two frames, or three, for the next run."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(5, 7, kernel_size=4, stride=2)
        self.rnn = nn.GRU(7, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(torch.relu(self.front(x.transpose(1, 2))).transpose(1, 2))[0]


class Placed(nn.Module):
    """A table of sixteen places: a stream knows where it is, and that places end.  Its loop by hand is cut into two."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(16, 5)
        self.front = nn.Linear(5, 9)

    def forward(self, x: Tensor) -> Tensor:
        write, forget, value = self.front(x + self.places(torch.arange(x.shape[1]))).chunk(3, -1)
        largest = memory = x.new_zeros(x.shape[0], 3)
        found = []
        for t in range(x.shape[1]):
            kept = nn.functional.logsigmoid(forget[:, t]) + largest
            largest = torch.maximum(kept, write[:, t])
            memory = torch.exp(kept - largest) * memory + torch.exp(write[:, t] - largest) * value[:, t]
            found.append(memory)
        return torch.stack(found, 1)


class Normed(nn.Module):
    """Takes and gives 16-bit floats."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = rnncore.Recurrent(rnncore.LSTMCell(5, 7, layer_norm=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.float())[0].half()


def spread(module: nn.Module) -> nn.Module:
    """Weights so large that answers differ."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.6)
    return module.eval()


def write_files(folder: Path) -> dict[str, list[str]]:
    """Everything, and the kinds of the golden cases of each file."""
    torch.manual_seed(23)
    ids, x = torch.tensor([[0, 12, 3, 4], [1, 5, 6, 2]]), torch.randn(2, 9, 5)
    letters = character_vocabulary([TEXT])
    export(spread(Tagger(num_layers=2)), folder / "tagger.onnx", ids)
    export(spread(Tagger(nn.GRU, 37)), folder / "fused.onnx", ids, form="fused", external_data=True)
    change_weights(folder / "fused.onnx", folder / "changed")
    export(Tagger(size=32).eval(), folder / "int8.onnx", ids, quantize="int8")
    export(spread(BothWays()), folder / "both_ways.onnx", (ids + 1, torch.randn(2, 8, 3)), lengths=True)
    export(spread(Spotter()), folder / "causal_convolution.onnx", x, streaming=True)
    export(spread(Strided()), folder / "strided.onnx", x, streaming=True)
    export(spread(Placed()), folder / "places.onnx", x, streaming=True)
    export(spread(Normed()), folder / "layer_norm.onnx", x.half(), form="scan")
    cells = (CellConfig.named("gru", 11),)
    model = spread(LanguageModel(LanguageModelConfig(len(letters), 5, cells)))
    example = torch.tensor([[0, 1, len(letters) - 1], [1, 0, 1]])
    metadata = {"rnncore.tokenizer": letters.to_json()}
    path = folder / "language_model.onnx"
    export(model, path, example, streaming=True, lengths=True, pick=True, metadata=metadata)
    export_generator(path, folder / "generator.onnx")
    translator = EncoderDecoder(EncoderDecoderConfig(7, 7, cells, cells, 3, attention="additive"))
    export_translator(spread(translator), folder / "translator.onnx")  # type: ignore[arg-type]

    kinds = {}
    for file in sorted(folder.glob("*.onnx")):
        loaded = runtime.load(file)
        (folder / f"{file.name}.json").write_text(json.dumps(document_of(loaded.metadata)))
        kinds[file.name] = [case["kind"] for case in json.loads(loaded.metadata["rnncore.golden"])["cases"]]
    (weights,) = folder.glob("fused.onnx.*.data")
    expected = {
        "files": kinds,
        "weights": weights.name,
        "vocabularies": vocabularies(),
        "saved": saved(folder),
        "foreign": write_foreign(folder / "foreign"),
        **texts(folder),
    }
    (folder / "expected.json").write_text(json.dumps(expected))
    return kinds


def change_weights(path: Path, into: Path) -> None:
    """A copy of a file and of its weights, of which one bit is another."""
    into.mkdir()
    shutil.copy(path, into)
    (weights,) = path.parent.glob(f"{path.name}.*.data")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    (into / weights.name).write_bytes(data)


def vocabularies() -> list[dict[str, Any]]:
    corpus = [TEXT, "The dog’s naïve Zoë\nran 12 miles…", " two  blanks\n\n and 東京 ", "it's <eos> here"]
    made: dict[str, tuple[Vocabulary, list[str]]] = {
        "characters": (character_vocabulary(corpus), corpus),
        "small letters": (word_vocabulary(corpus, 30, lowercase=True), [*corpus, "MATS ΣΑΣ the İ THE"]),
        "words of others": (words_of_others(), ["the cat </s> sat", "a dog", ""]),
        "words": (word_vocabulary(corpus, 30), [*corpus, "unknown wörds, (too) <eos>!"]),
        "tokens": (token_vocabulary([text.split() for text in corpus], 40), [*corpus, "MATS 77 <eos> zzz"]),
        "byte pairs": (subword_vocabulary(corpus * 3, 300), [*corpus, "Ω  unseen 🙂\ttext it'll"]),
    }
    return [
        {"name": name, "tokenizer": json.loads(vocabulary.to_json()), "texts": [read(vocabulary, one) for one in some]}
        for name, (vocabulary, some) in made.items()
    ]


def words_of_others() -> Vocabulary:
    """With another token at the end of texts, an ordinary one, and another for what is unknown."""
    words = ["</s>", "oov", "the", "cat", "sat", "a"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="oov"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Vocabulary(tokenizer)


def read(vocabulary: Vocabulary, text: str) -> dict[str, Any]:
    ids = vocabulary.encode(text)
    return {"text": text, "ids": ids.tolist(), "decoded": vocabulary.decode(ids)}


def saved(folder: Path) -> dict[str, dict[str, Any]]:
    """Streams that Python saved after a first chunk, and what it answers to the next; of the convolutions steps wait."""
    rows = [[((3 * t + i) % 7 - 3) / 4 for i in range(5)] for t in range(7)]
    chunks = {
        "tagger.onnx": ([3, 1, 4], [1, 5]),
        "layer_norm.onnx": (rows[:3], rows[3:]),
        "causal_convolution.onnx": (rows[:3], rows[3:]),
        "strided.onnx": (rows[:3], rows[3:]),
    }
    found = {}
    for name, (first, then) in chunks.items():
        with runtime.load(folder / name).stream() as stream:
            stream.push(first)
            snapshot = base64.b64encode(stream.save()).decode()
            found[name] = {"first": first, "then": then, "snapshot": snapshot, "answer": stream.push(then).tolist()}
    return found


def texts(folder: Path) -> dict[str, Any]:
    """What the three classes for texts give; options are named as in JavaScript."""
    model = runtime.LanguageModel.load(folder / "language_model.onnx")
    samples = [
        {"prefix": "the ", "maxTokens": 30, "seed": 3},
        {"maxTokens": 20, "seed": 2**40 + 7, "temperature": 0.7, "topK": 5, "topP": 0.9},
        {"maxTokens": 9, "temperature": 0},
    ]
    generator = runtime.TextGenerator.load(folder / "generator.onnx")
    written = [
        (["the ", "a", ""], {"maxTokens": 25, "seed": 5}),
        (["dog"], {"maxTokens": 12, "seed": 1, "temperature": 0.5, "topK": 4, "topP": 0.8}),
    ]
    translator = runtime.Translator.load(folder / "translator.onnx")
    sources = [[1, 2, 3], [], [6, 5, 4, 3, 2]]
    searches = [{}, {"beam": 3, "maxTokens": 6, "lengthPenalty": 0.6}]
    return {
        "language_model": {
            "text": TEXT,
            "log_probs": [score.log_prob for score in model.token_scores(TEXT)],
            "samples": [{"options": one, "written": model.sample(**snake(one))} for one in samples],
        },
        "generator": [
            {"prefixes": prefixes, "options": one, "written": generator.generate(prefixes, **snake(one))}
            for prefixes, one in written
        ],
        "translator": [
            {
                "sources": sources,
                "options": one,
                "found": [
                    [[best.ids.tolist(), best.score] for best in found]
                    for found in translator.translate_ids(sources, **snake(one))
                ],
            }
            for one in searches
        ],
    }


def snake(options: dict[str, Any]) -> dict[str, Any]:
    names = {"maxTokens": "max_tokens", "topK": "top_k", "topP": "top_p", "lengthPenalty": "length_penalty"}
    return {names.get(name, name): value for name, value in options.items()}
