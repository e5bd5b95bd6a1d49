"""``TextGenerator``: texts from a file that writes them in one call, the whole loop inside the graph."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, ModelFileError, raise_all
from rnncore.runtime.format.signature import BATCH, TIME, TensorSpec
from rnncore.runtime.model import Model, load
from rnncore.runtime.session.failures import enough_memory
from rnncore.runtime.tensors.padding import pack
from rnncore.runtime.tensors.specs import Slot
from rnncore.runtime.tensors.validation import read_array
from rnncore.runtime.text.columns import read_texts, text_of
from rnncore.runtime.text.sampling import check_sampling
from rnncore.runtime.text.token_scorer import Ids
from rnncore.runtime.text.vocabulary import Vocabulary

GENERATION_KEY = "rnncore.generation"
DRAWS, STEPS = "draws", "steps"
_TOKENIZER_KEY = "rnncore.tokenizer"
_ALL = np.iinfo(np.int64).max
_INPUTS = {
    "prefix": ("int64", (BATCH, TIME)),
    "uniforms": ("float64", (BATCH, DRAWS)),
    "max_tokens": ("int64", (BATCH,)),
    "temperature": ("float64", (BATCH,)),
    "top_k": ("int64", (BATCH,)),
    "top_p": ("float64", (BATCH,)),
}
_OUTPUTS = ("ids", "ids_lengths", "log_probs")


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a generator: ``start`` is read first, ``end`` ends a text, ``rejected`` are never written."""

    start: int
    end: int
    rejected: tuple[int, ...] = ()

    def to_json(self) -> str:
        """JSON text, for the metadata of a file."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> SpecialTokens:
        """Read :meth:`to_json` text; raises ModelFileError when it is not such a text."""
        try:
            data = json.loads(text)
            return cls(int(data["start"]), int(data["end"]), tuple(int(token) for token in data["rejected"]))
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ModelFileError(f"{GENERATION_KEY} in the file cannot be read ({error!r}): export it again") from None


class Written(NamedTuple):
    """One text: its token ids int64 [tokens], and the model's log-probabilities of them.

    ``log_probs`` has one number more than ``ids`` if the model ended the text: that of the end.
    """

    ids: Ids
    log_probs: Array


class TextGenerator:
    """Writes texts with a file of :func:`rnncore.export.export_generator`; immutable and shared like its model.

    One call of onnxruntime writes all tokens of all texts, which saves the way back to Python after each token.

    Args:
        model: the file, loaded.

    Raises:
        ModelFileError: the file is no generator.
        InputError: the model was loaded with ``max_batch_steps``.
    """

    def __init__(self, model: Model) -> None:
        model.engine.check_in_one_call("a generator", "ask for fewer texts at once")
        self.model = model
        self.rules = _rules(model)
        text = model.metadata.get(_TOKENIZER_KEY)
        self.vocabulary = None if text is None else Vocabulary.from_json(text)

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes, **options: Any) -> TextGenerator:
        """Load a generator file; options and errors as for :func:`rnncore.runtime.load`."""
        return cls(load(source, **options))

    @overload
    def generate(self, prefixes: str = "", **options: Any) -> str: ...
    @overload
    def generate(self, prefixes: Sequence[str], **options: Any) -> list[str]: ...
    def generate(self, prefixes: str | Sequence[str] = "", **options: Any) -> str | list[str]:
        """Write on from a prefix, or from each of several at once; returns what was written, without the prefix.

        The text of one prefix is that of ``LanguageModel.sample`` with the same seed and options.

        Args:
            prefixes: how the text begins, or a list of beginnings, of any lengths.
            options: as for :meth:`generate_ids`.

        Raises:
            InputError: an option is out of range, or the file has no tokenizer.
            UnknownTokenError: a prefix holds something the vocabulary lacks.
        """
        if self.vocabulary is None:
            raise InputError("the file has no tokenizer: use generate_ids")
        one = text_of(prefixes)
        texts = read_texts(prefixes, "prefix") if one is None else [one]
        written = self.generate_ids(self.vocabulary.encode_many(texts), **options)
        decoded = [self.vocabulary.decode(one.ids) for one in written]
        return decoded if one is None else decoded[0]

    def generate_ids(
        self,
        prefixes: Sequence[Sequence[int] | Array],
        *,
        max_tokens: int = 400,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        uniforms: Array | None = None,
    ) -> list[Written]:
        """Token ids written on from each prefix of token ids, which may be empty.

        Args:
            prefixes: one sequence of ids for each text.
            max_tokens: stop after so many tokens, even if the text has not ended.
            temperature: below 1 is more careful, above 1 more daring; 0 always takes the likeliest token.
            top_k: draw among the k likeliest tokens only.
            top_p: draw among the likeliest tokens that together have this probability.
            seed: of the random numbers; None for new ones each time.
            uniforms: the random numbers themselves, float64 [texts, max_tokens] in [0, 1); then there is no seed.

        Raises:
            InputError: lists every value that does not fit.
        """
        check_sampling(temperature, top_k, top_p, seed)
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int | np.integer) or max_tokens < 0:
            raise InputError(f"max_tokens is {max_tokens!r}, expected an integer of at least 0")
        rows = self._read(prefixes)
        if not rows:
            return []
        lengths = np.array([len(row) for row in rows], np.int64)
        slot = self.model.engine.layout.inputs[0]
        with enough_memory():
            arrays = {
                "prefix": pack(slot, rows, max(1, int(lengths.max()))),
                "uniforms": _uniforms(uniforms, seed, len(rows), int(max_tokens)),
                "max_tokens": np.full(len(rows), max_tokens, np.int64),
                "temperature": np.full(len(rows), temperature, np.float64),
                "top_k": np.full(len(rows), _ALL if top_k is None else top_k, np.int64),
                "top_p": np.full(len(rows), 1.0 if top_p is None else top_p, np.float64),
            }
        values = self.model.engine.call(arrays, {}, lengths, len(rows), arrays["prefix"].shape[1])
        ids, counts, log_probs = (values[name] for name in _OUTPUTS)
        ended = (np.arange(ids.shape[1]) == counts[:, None]).any(1) & (counts < max_tokens)
        return [
            Written(ids[i, :n].copy(), log_probs[i, : n + int(ended[i])].copy()) for i, n in enumerate(counts.tolist())
        ]

    def _read(self, prefixes: Sequence[Sequence[int] | Array]) -> list[Array]:
        if text_of(prefixes) is not None:
            raise InputError("prefixes are a str, expected lists of token ids: use generate for texts")
        slot = Slot.of(replace(self.model.signature.inputs[0], name="prefix", shape=(BATCH,)))
        problems: list[str] = []
        rows = [read_array(one, slot, slot.shape, f"prefix {i}", problems) for i, one in enumerate(prefixes)]
        raise_all(problems)
        return [row for row in rows if row is not None]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return TextGenerator, (self.model,)


def _uniforms(given: Array | None, seed: int | None, texts: int, max_tokens: int) -> Array:
    if given is None:
        return np.random.default_rng(seed).random((texts, max_tokens))
    if seed is not None:
        raise InputError("seed and uniforms are given: with the random numbers themselves there is nothing to seed")
    slot = Slot.of(TensorSpec("uniforms", "float64", (BATCH, DRAWS)))
    problems: list[str] = []
    read = read_array(given, slot, (texts, max_tokens), "uniforms", problems)
    raise_all(problems)
    assert read is not None
    if read.size and not ((read >= 0.0) & (read < 1.0)).all():
        raise InputError(f"uniforms are {read.min()} to {read.max()}, expected at least 0 and below 1")
    return read


def _rules(model: Model) -> SpecialTokens:
    text = model.metadata.get(GENERATION_KEY)
    if text is None:
        raise ModelFileError("the file does not generate: write it with rnncore.export.export_generator")
    found = {port.name: (port.dtype, port.shape) for port in model.signature.inputs}
    problems = [
        f"input {name!r} is {found.get(name, 'missing')}, expected {expected}"
        for name, expected in _INPUTS.items()
        if found.get(name) != expected
    ]
    problems += [f"there is no output {name!r}" for name in _OUTPUTS if name not in model.outputs]
    raise_all(problems, ModelFileError, "the file calls itself a generator, but is none")
    return SpecialTokens.from_json(text)
