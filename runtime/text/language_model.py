"""``LanguageModel``: texts in, probabilities and texts out, from a model file and without PyTorch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, ModelFileError, UnknownTokenError, raise_all
from rnncore.runtime.format.signature import BATCH, TensorSpec
from rnncore.runtime.model import Model, load
from rnncore.runtime.tensors.specs import Slot
from rnncore.runtime.tensors.validation import read_array
from rnncore.runtime.text import states as text_states
from rnncore.runtime.text.batch_sampling import Uniforms, sample_side_by_side
from rnncore.runtime.text.columns import entries_of, read_texts, text_of
from rnncore.runtime.text.hypotheses import score_hypotheses
from rnncore.runtime.text.log_probs import log_probability_problem
from rnncore.runtime.text.sampling import check_sampling, draw, sampling_probabilities
from rnncore.runtime.text.states import TextStates
from rnncore.runtime.text.stream import TextStream
from rnncore.runtime.text.token_scorer import Ids, TokenScorer
from rnncore.runtime.text.vocabulary import Vocabulary

TOKENIZER_KEY = "rnncore.tokenizer"

# Steps of one call: enough that a call costs nothing, few enough that [steps, vocabulary] stays small.
_CHUNK = 1024


class TokenScore(NamedTuple):
    """One token of a text, and its natural-log probability given those before it."""

    token: str
    log_prob: float


class LanguageModel:
    """A text model on top of :class:`rnncore.runtime.Model`; immutable and shared like it.

    The file carries its tokenizer.  The model reads ``<eos>`` before the first token of every text, so the first token
    has a probability too.  Logarithms are natural.

    Args:
        model: its input is token ids int64 [batch, time], its output log-probabilities of the next token
            [batch, time, vocabulary], and it streams.

    Raises:
        ModelFileError: the file has no tokenizer, or the model's input and output are not these.
        NotStreamableError: the model is not causal.
        MissingExtraError: the package ``tokenizers`` is not installed.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.vocabulary = _vocabulary(model)
        _check_ports(model, len(self.vocabulary))
        self._scorer = TokenScorer(model.engine)
        with self.stream() as stream:
            problem = log_probability_problem(stream.next_log_probs())
        if problem:
            raise ModelFileError(f"the model's output is {problem} and export again")

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes, **options: Any) -> LanguageModel:
        """Load a file of ``rnncore train``, or any model exported with its tokenizer; options and errors as for ``load``."""
        return cls(load(source, **options))

    def encode(self, text: str) -> np.ndarray:
        """Token ids of ``text``, int64 [tokens]; raises UnknownTokenError, which says what is unknown and where."""
        return self.vocabulary.encode(text)

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """The text of token ids; ``<eos>`` is left out."""
        return self.vocabulary.decode(ids)

    def stream(self) -> TextStream:
        """A stream at the beginning of a text."""
        return TextStream(self.model.stream(), self.vocabulary)

    def score(self, text: str, *, eos: bool = False) -> float:
        """Log-probability that a text begins with ``text``; 0 for an empty one.

        Args:
            text: what to score.
            eos: the log-probability that ``text`` is the whole text, its end included.
        """
        return float(sum(part.sum() for part in self._log_probs(self._tokens(text, eos))))

    def token_scores(self, text: str, *, eos: bool = False) -> list[TokenScore]:
        """As :meth:`score`, token by token, read as a stream of single tokens."""
        ids = self._tokens(text, eos)
        with self.stream() as stream:
            return [TokenScore(self.vocabulary.token(token_id), stream.push(token_id)) for token_id in ids.tolist()]

    def perplexity(self, text: str, *, eos: bool = False, per: str = "token") -> float:
        """``exp(-score / tokens)``: among how many equally likely tokens the model hesitates, on average.

        Args:
            text: what to score.
            eos: count the end of the text too.
            per: "token", or "character" to compare models whose tokens differ: divides by the characters of ``text``.

        Raises:
            InputError: nothing to predict: an empty text without ``eos``; ``per`` is something else.
        """
        if per not in ("token", "character"):
            raise InputError(f"per is {per!r}, expected 'token' or 'character'")
        ids = self._tokens(text, eos)
        count = len(ids) if per == "token" else len(text) + eos
        if not len(ids):
            raise InputError("an empty text has no perplexity: hand in at least one token, or eos=True")
        return math.exp(-float(sum(part.sum() for part in self._log_probs(ids))) / count)

    def rescore(self, nbest: Sequence[str | Sequence[int] | Array], *, eos: bool = False) -> list[float]:
        """The :meth:`score` of each hypothesis, in the order of ``nbest``.

        What hypotheses have in common at their beginning is read once, and they are read side by side, so an n-best
        list takes a fraction of the time of scoring them one by one.  Equal up to rounding, which differs with the
        number of texts that are read side by side.

        Args:
            nbest: texts, or token ids of texts without ``<eos>``.  None at all give none; an empty hypothesis has the
                score 0, or with ``eos`` the log-probability that a text is empty.
            eos: as for :meth:`score`.

        Raises:
            UnknownTokenError: a text has unknown characters; says which hypotheses and where.
            InputError: a hypothesis is neither a text nor a sequence of ids in range.
        """
        return self._rescored([nbest], eos, "hypothesis {1}")[0]

    def rescore_many(
        self, nbests: Sequence[Sequence[str | Sequence[int] | Array]], *, eos: bool = False
    ) -> list[list[float]]:
        """As :meth:`rescore` for the n-best lists of many utterances at once: more texts side by side, less time for each."""
        if text_of(nbests) is not None:
            raise InputError("nbests is a str, expected a list of n-best lists")
        return self._rescored(nbests, eos, "utterance {0}, hypothesis {1}")

    def initial_states(self, batch: int = 1) -> TextStates:
        """``batch`` texts at their beginning, for :meth:`score_tokens`.

        With these a beam search elsewhere (shallow fusion) keeps its own books::

            states = model.initial_states()
            while ...:
                log_probs = model.next_log_probs(states)              # [beams, vocabulary]
                parents, tokens = ...                                 # the search chooses
                _, states = model.score_tokens(states.select(parents), tokens)

        A search that has chosen its candidates without the model asks for these alone: select the parent of each, and
        score its token.  A text selected twice is still read once.
        """
        return text_states.initial_states(self._scorer, self.vocabulary.eos_id, batch)

    def score_tokens(self, states: TextStates, tokens: Sequence[int] | Array) -> tuple[Array, TextStates]:
        """Log-probability of ``tokens[i]`` as the next token of text i, float [batch], and the texts with these added.

        Args:
            states: of this model; they stay what they are, so the same ones can be gone on from again.
            tokens: ids, one for each text.

        Raises:
            InputError: another number of tokens, or an id out of range.
            StateError: the states belong to another model.
        """
        return text_states.score_tokens(self._scorer, states, tokens)

    def next_log_probs(self, states: TextStates) -> Array:
        """Log-probability of every token as the next one of each text, [batch, vocabulary]; a copy.

        Going on with :meth:`score_tokens` from these states, or a selection of them, then costs nothing.
        """
        return text_states.next_log_probs(self._scorer, states)

    @overload
    def sample(
        self,
        max_tokens: int = ...,
        *,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        seed: int | None = ...,
        prefix: str = ...,
    ) -> str: ...
    @overload
    def sample(
        self,
        max_tokens: int = ...,
        *,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        seed: int | None = ...,
        prefix: list[str] | tuple[str, ...] | Array,
    ) -> list[str]: ...
    def sample(
        self,
        max_tokens: int = 400,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        prefix: str | list[str] | tuple[str, ...] | Array = "",
    ) -> str | list[str]:
        """Write on from ``prefix`` until the model ends the text; returns what was written, without the prefix.

        Several prefixes are written on side by side, each step in one call for all.  Each text draws from random
        numbers of its own, the first one from those of a single prefix with the same seed; ``TextGenerator.generate``
        draws the same.

        A word that the vocabulary lacks (``<unk>``) is never written: the other tokens share its probability, which is
        what drawing again until another token comes amounts to.

        Args:
            max_tokens: stop after so many tokens, even if the text has not ended.
            temperature: below 1 is more careful, above 1 more daring; 0 always takes the likeliest token.
            top_k: draw among the k likeliest tokens only.
            top_p: draw among the likeliest tokens that together have this probability.
            seed: the same seed gives the same text on the same machine; None for a new one each time.
            prefix: how the text begins, or a list or column of beginnings, of any lengths.

        Raises:
            InputError: an option is out of range.
            UnknownTokenError: a prefix holds something the vocabulary lacks.
        """
        check_sampling(temperature, top_k, top_p, seed)
        raise_all(count_problems("max_tokens", max_tokens, 0, numpy=True))
        rejected = () if self.vocabulary.unk_id is None else (self.vocabulary.unk_id,)
        if text_of(prefix) is None:
            begun = [
                np.append(np.int64(self.vocabulary.eos_id), ids)
                for ids in self.vocabulary.encode_many(read_texts(prefix, "prefix"))
            ]
            uniforms = Uniforms(seed, len(begun), max_tokens)
            options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "rejected": rejected}
            conditions: list[list[Any]] = [[] for _ in begun]
            texts = sample_side_by_side(self.model, begun, conditions, uniforms, self.vocabulary.eos_id, options)
            return [self.decode(ids) for ids in texts]
        generator = np.random.default_rng(seed)
        written: list[int] = []
        with self.stream() as stream:
            for token_id in self.encode(str(text_of(prefix))).tolist():
                stream.push(token_id)
            while len(written) < max_tokens:
                probabilities = sampling_probabilities(
                    stream.next_log_probs(), temperature=temperature, top_k=top_k, top_p=top_p, rejected=rejected
                )
                token_id = draw(probabilities, generator)
                if token_id == self.vocabulary.eos_id:
                    break
                written.append(token_id)
                stream.push(token_id)
        return self.decode(written)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return LanguageModel, (self.model,)

    def _tokens(self, text: str, eos: bool) -> np.ndarray:
        ids = self.encode(text)
        return np.append(ids, self.vocabulary.eos_id) if eos else ids

    def _log_probs(self, ids: Ids) -> Iterator[Array]:
        """Log-probability of each token given those before it, float64, in chunks of [tokens]."""
        read = np.concatenate(([self.vocabulary.eos_id], ids[:-1])).astype(np.int64)
        states = self._scorer.initial_states(1)
        size = self._scorer.steps_of_one_call(_CHUNK)
        for start in range(0, len(ids), size):
            chunk = slice(start, start + size)
            log_probs, states = self._scorer.score(states, read[None, chunk], ids[None, chunk, None])
            yield log_probs[0, :, 0].astype(np.float64)

    def _rescored(self, nbests: Sequence[Sequence[Any]], eos: bool, label: str) -> list[list[float]]:
        for i, nbest in enumerate(nbests):
            if text_of(nbest) is not None:
                raise InputError(f"n-best list {i} is a str, expected a list of hypotheses")
        nbests = [entries_of(nbest) or list(nbest) for nbest in nbests]
        labels = [label.format(i, k) for i, nbest in enumerate(nbests) for k in range(len(nbest))]
        hypotheses = self._read_hypotheses([one for nbest in nbests for one in nbest], labels)
        if eos:
            hypotheses = [np.append(ids, self.vocabulary.eos_id) for ids in hypotheses]
        scores = iter(score_hypotheses(self._scorer, self.vocabulary.eos_id, hypotheses).tolist())
        return [[next(scores) for _ in nbest] for nbest in nbests]

    def _read_hypotheses(self, hypotheses: Sequence[Any], labels: Sequence[str]) -> list[Ids]:
        told = [text_of(one) for one in hypotheses]
        texts = [text for text in told if text is not None]
        try:
            encoded = iter(self.vocabulary.encode_many(texts))
        except UnknownTokenError:
            raise_all(self._unknown(hypotheses, labels), UnknownTokenError)
            raise
        slot = Slot.of(TensorSpec("hypothesis", "int64", (BATCH,), len(self.vocabulary)))
        problems: list[str] = []
        read: list[Ids] = []
        for one, text, name in zip(hypotheses, told, labels, strict=True):
            ids = next(encoded) if text is not None else read_array(one, slot, slot.shape, name, problems)
            if ids is not None:
                read.append(ids)
        raise_all(problems)
        return read

    def _unknown(self, hypotheses: Sequence[Any], labels: Sequence[str]) -> list[str]:
        problems = []
        for one, name in zip(hypotheses, labels, strict=True):
            if text_of(one) is not None:
                try:
                    self.encode(one)
                except UnknownTokenError as error:
                    problems.append(f"{name}: {error}")
        return problems


def _vocabulary(model: Model) -> Vocabulary:
    text = model.metadata.get(TOKENIZER_KEY)
    if text is None:
        raise ModelFileError(
            f"the file has no tokenizer, so it is no text model: export it with metadata={{{TOKENIZER_KEY!r}: "
            "vocabulary.to_json()}, or use rnncore.runtime.load for models of numbers"
        )
    return Vocabulary.from_json(text)


def _check_ports(model: Model, tokens: int) -> None:
    signature = model.signature
    problems = []
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        problems.append(
            f"{len(signature.inputs)} inputs and {len(signature.outputs)} outputs, expected token ids in and "
            "log-probabilities out"
        )
    else:
        (ids,), (log_probs,) = signature.inputs, signature.outputs
        if ids.dtype != "int64" or ids.shape != ("batch", "time"):
            problems.append(f"input '{ids.name}' is {ids.dtype} {list(ids.shape)}, expected int64 ['batch', 'time']")
        if log_probs.shape != ("batch", "time", tokens):
            problems.append(
                f"output '{log_probs.name}' is {list(log_probs.shape)}, expected ['batch', 'time', {tokens}] for a "
                f"tokenizer of {tokens} tokens"
            )
    raise_all(problems, ModelFileError)
