"""``Translator``: sequences in, other sequences out, from one file and without PyTorch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import InputError, ModelFileError, raise_all
from rnncore.runtime.format.signature import BATCH
from rnncore.runtime.model import Model, load
from rnncore.runtime.session.failures import enough_memory
from rnncore.runtime.tensors.padding import pack
from rnncore.runtime.tensors.specs import Slot
from rnncore.runtime.tensors.validation import read_array
from rnncore.runtime.text.beam import MOST_BEAMS, Found, beam_search
from rnncore.runtime.text.columns import read_texts, text_of
from rnncore.runtime.text.log_probs import log_probability_problem
from rnncore.runtime.text.token_scorer import Ids
from rnncore.runtime.text.vocabulary import Vocabulary

TRANSLATION_KEY = "rnncore.translation"
SOURCE_TOKENIZER_KEY = "rnncore.source_tokenizer"
TARGET_TOKENIZER_KEY = "rnncore.target_tokenizer"
POSITIONS, BEAM = "positions", "beam"
_NEEDED = (
    ("source", "max_tokens", "token", "beam", "length_penalty"),
    ("ids", "ids_lengths", "next_log_probs", "beam.ids", "beam.ids_lengths", "beam.log_prob", "beam.score"),
)


@dataclass(frozen=True)
class DecoderFeeds:
    """How a file is asked to go on.

    end: the token that begins and ends a target.  feeds: the output that feeds each optional input.  rejected: tokens that
    are never written, such as ``<unk>``; none in files written before there were such.
    """

    end: int
    feeds: dict[str, str]
    rejected: tuple[int, ...] = ()

    def to_json(self) -> str:
        """JSON text, for the metadata of a file."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> DecoderFeeds:
        """Read :meth:`to_json` text; raises ModelFileError when it is not such a text."""
        try:
            data = json.loads(text)
            feeds = {str(name): str(output) for name, output in data["feeds"].items()}
            return cls(int(data["end"]), feeds, tuple(int(token) for token in data.get("rejected", ())))
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise ModelFileError(f"{TRANSLATION_KEY} in the file cannot be read ({error!r}): export it again") from None


class Translator:
    """Translates with a file of :func:`rnncore.export.export_translator`; immutable and shared like its model.

    One call of onnxruntime translates a batch of texts: the file reads the source and writes the target in a loop of its
    own, greedily or by beam search.  The same search also runs here, and then asks the file for single steps.

    Args:
        model: the file, loaded.

    Raises:
        ModelFileError: the file does not translate.
        InputError: the model was loaded with ``max_batch_steps``.
    """

    def __init__(self, model: Model) -> None:
        model.engine.check_in_one_call("a translator", "bound its calls with batch_size")
        self.model = model
        self.wiring = _wiring(model)
        self._sources = Slot.of(model.signature.inputs[0])
        self.source_vocabulary, self.target_vocabulary = (
            None if key not in model.metadata else Vocabulary.from_json(model.metadata[key])
            for key in (SOURCE_TOKENIZER_KEY, TARGET_TOKENIZER_KEY)
        )
        problem = log_probability_problem(self._first_step())
        if problem:
            raise ModelFileError(f"the translator's next_log_probs are {problem} and export again")

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes, **options: Any) -> Translator:
        """Load a translator's file; options and errors as for :func:`rnncore.runtime.load`."""
        return cls(load(source, **options))

    @overload
    def translate(self, texts: str, **options: Any) -> str: ...
    @overload
    def translate(self, texts: Sequence[str], **options: Any) -> list[str]: ...
    def translate(self, texts: str | Sequence[str], **options: Any) -> str | list[str]:
        """The best translation found of a text, or of each of several.

        Args:
            texts: one text, or a list of texts of any lengths.
            options: as for :meth:`translate_ids`.

        Raises:
            InputError: an option is out of range, or the file has no tokenizers.
            UnknownTokenError: a text holds something the vocabulary lacks.
        """
        if self.source_vocabulary is None or self.target_vocabulary is None:
            raise InputError("the file has no tokenizers: use translate_ids")
        one = text_of(texts)
        several = read_texts(texts) if one is None else [one]
        found = self.translate_ids(self.source_vocabulary.encode_many(several), **options)
        written = [self.target_vocabulary.decode(best[0].ids) for best in found]
        return written if one is None else written[0]

    def translate_ids(
        self,
        sources: Sequence[Sequence[int] | Array],
        *,
        beam: int = 1,
        max_tokens: int | None = None,
        length_penalty: float = 0.0,
        batch_size: int = 64,
        one_call: bool = True,
    ) -> list[list[Found]]:
        """For each source the targets found, best first: one if ``beam`` is 1, at most ``beam`` otherwise.

        Args:
            sources: token ids of each source, which may be empty.
            beam: sequences kept while searching, see :func:`rnncore.runtime.text.beam.beam_search`; 1 always takes the
                likeliest token.
            max_tokens: most tokens of a target, its end included; twice those of its source plus ten by default.
            length_penalty: 0 ranks targets by probability, 1 by its mean over tokens.
            batch_size: most sources of one call; those of similar lengths share one.
            one_call: False asks the file for one step a call, and moves states between the sequences here; the answers
                are the same.  Sequences that have ended cost nothing then, but each step goes through Python.

        Raises:
            InputError: lists every value that does not fit.
        """
        rows = self._read(sources, beam, max_tokens, length_penalty, batch_size)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        results: list[list[Found]] = [[] for _ in rows]
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            some = [rows[i] for i in part]
            limits = np.array([2 * len(row) + 10 if max_tokens is None else max_tokens for row in some], np.int64)
            search = self._in_one_call if one_call else self._step_by_step
            found = search(some, limits, beam, length_penalty)
            for i, one in zip(part, found, strict=True):
                results[i] = one
        return results

    def _in_one_call(self, rows: list[Array], limits: Ids, beam: int, length_penalty: float) -> list[list[Found]]:
        options = {
            "beam": np.full(len(rows), beam, np.int64),
            "length_penalty": np.full(len(rows), length_penalty, np.float64),
        }
        return read_found(self._begin(rows, limits, options))

    def _step_by_step(self, rows: list[Array], limits: Ids, beam: int, length_penalty: float) -> list[list[Found]]:
        kept = self._begin(rows, np.ones(len(rows), np.int64), {})
        lengths = np.array([len(row) for row in rows], np.int64)

        def advance(chosen: NDArray[np.intp], tokens: Ids) -> Array:
            nonlocal kept, lengths
            lengths = lengths[chosen]
            feeds = {name: kept[output].take(chosen, 0) for name, output in self.wiring.feeds.items()}
            kept = self._call(
                np.zeros((len(chosen), 1), np.int64), lengths, np.ones(len(chosen), np.int64), tokens, feeds
            )
            return self._choices(kept)

        first = self._choices(kept)
        return beam_search(first, advance, beam=beam, end=self.wiring.end, limits=limits, length_penalty=length_penalty)

    def _first_step(self) -> Array:
        """What a target may begin with [1, vocabulary], for a source of one step of zeros."""
        source = np.zeros(1, self._sources.dtype)
        return self._begin([source], np.ones(1, np.int64), {})["next_log_probs"]

    def _choices(self, answer: Mapping[str, Array]) -> Array:
        """Log-probabilities of what may come next, float64 [rows, vocabulary]; -inf for tokens that are never written."""
        log_probs = answer["next_log_probs"].astype(np.float64)
        log_probs[:, list(self.wiring.rejected)] = -np.inf
        return log_probs

    def _begin(self, rows: list[Array], limits: Ids, options: dict[str, Array]) -> dict[str, Array]:
        """Read the sources and decode from the beginning."""
        lengths = np.array([len(row) for row in rows], np.int64)
        with enough_memory():
            source = pack(self._sources, rows, max(1, int(lengths.max())))
        return self._call(source, lengths, limits, np.full(len(rows), -1, np.int64), options)

    def _call(self, source: Array, lengths: Ids, limits: Ids, token: Ids, feeds: dict[str, Array]) -> dict[str, Array]:
        arrays = {"source": source, "max_tokens": limits, "token": token, **feeds}
        return self.model.engine.call(arrays, {}, lengths, len(lengths), source.shape[1])

    def _read(
        self, sources: Any, beam: int, max_tokens: int | None, length_penalty: float, batch_size: int
    ) -> list[Array]:
        if text_of(sources) is not None:
            raise InputError("sources are a str, expected lists of token ids: use translate for texts")
        named = {"beam": beam, "batch_size": batch_size, **({} if max_tokens is None else {"max_tokens": max_tokens})}
        problems = [
            f"{name} is {value!r}, expected an integer of at least {least}"
            for name, value in named.items()
            for least in (0 if name == "max_tokens" else 1,)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least
        ]
        if not problems and beam > MOST_BEAMS:
            problems.append(f"beam is {beam}, expected at most {MOST_BEAMS}: every place of a beam takes memory")
        if not 0.0 <= length_penalty < float("inf"):
            problems.append(f"length_penalty is {length_penalty}, expected 0 or more")
        slot = Slot.of(replace(self.model.signature.inputs[0], name="source", shape=(BATCH,)))
        rows = [read_array(one, slot, slot.shape, f"source {i}", problems) for i, one in enumerate(sources)]
        raise_all(problems)
        return [row for row in rows if row is not None]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Translator, (self.model,)


def read_found(answer: Mapping[str, Array]) -> list[list[Found]]:
    """What each row of a translator's ``answer`` holds, best first; places that nothing possible fills are left out."""
    results = []
    for places in zip(*(answer[f"beam.{name}"] for name in ("ids", "ids_lengths", "log_prob", "score")), strict=True):
        rows = zip(places[0], *(column.tolist() for column in places[1:]), strict=True)
        found = [Found(ids[:count].copy(), log_prob, score) for ids, count, log_prob, score in rows]
        results.append([found[0], *(one for one in found[1:] if one.log_prob > -np.inf)])
    return results


def _wiring(model: Model) -> DecoderFeeds:
    text = model.metadata.get(TRANSLATION_KEY)
    if text is None:
        raise ModelFileError("the file does not translate: write it with rnncore.export.export_translator")
    wiring = DecoderFeeds.from_json(text)
    inputs, outputs = model.inputs, model.outputs
    missing = [f"there is no input {name!r}" for name in (*_NEEDED[0], *wiring.feeds) if name not in inputs]
    missing += [f"there is no output {name!r}" for name in (*_NEEDED[1], *wiring.feeds.values()) if name not in outputs]
    if not missing and (inputs[0] != "source" or model.signature.lengths is None):
        missing.append("the first input is not 'source', or there are no lengths")
    raise_all(missing, ModelFileError, "the file calls itself a translator, but lacks what one has: export it again")
    return wiring
