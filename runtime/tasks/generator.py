"""``Generator``: from a condition, or from nothing, to a sequence, from a model file and without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rnncore.runtime.arrays import Array
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, ModelFileError, UnknownTokenError, raise_all
from rnncore.runtime.format.signature import BATCH, TIME
from rnncore.runtime.model import Model
from rnncore.runtime.tasks.task import EOS_KEY, TOKENIZER_KEY, TaskRunner
from rnncore.runtime.tensors.array_likes import as_array
from rnncore.runtime.text.batch_sampling import Uniforms, sample_side_by_side
from rnncore.runtime.text.sampling import check_sampling, draw, sampling_probabilities
from rnncore.runtime.text.vocabulary import unknown_token_id


class Generator(TaskRunner):
    """A file of ``rnncore.Generator``.

    ::

        generator = Generator.load("music.onnx")
        generator.generate("jig", temperature=0.8, seed=1)      # a text, if the file has a tokenizer
        for token_id in generator.ids("jig", seed=1): ...       # token by token, as they are drawn
    """

    task = "generator"
    output = (BATCH, TIME)

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        try:
            self.eos_id = int(json.loads(model.metadata[EOS_KEY]))
        except (KeyError, ValueError, TypeError, ArithmeticError):
            raise ModelFileError(f"{EOS_KEY} in the file is no token id: export the model again") from None
        unknown = unknown_token_id(model.metadata.get(TOKENIZER_KEY))
        self._rejected = () if unknown is None else (unknown,)

    def generate(
        self,
        condition: str | None = None,
        max_tokens: int = 400,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        prefix: str = "",
    ) -> str:
        """A text, without the prefix; arguments as of :meth:`ids`."""
        return self.vocabulary.decode(
            list(
                self.ids(
                    condition,
                    max_tokens,
                    temperature=temperature,
                    top_k=top_k,
                    top_p=top_p,
                    seed=seed,
                    prefix=prefix,
                )
            )
        )

    def generate_many(
        self,
        conditions: Sequence[str | None],
        max_tokens: int = 400,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        prefixes: Sequence[Any] | None = None,
    ) -> list[str]:
        """As :meth:`generate` for each of several conditions, side by side, each step in one call for all.

        Each sequence draws from random numbers of its own, the first one from those of a single one with the same seed.

        Args:
            conditions: one for each text; ``[None] * 5`` for five texts of a model without conditions.
            prefixes: how each text begins, as many; None for nothing.
            max_tokens, temperature, top_k, top_p, seed: as of :meth:`ids`.
        """
        check_sampling(temperature, top_k, top_p, seed)
        raise_all(count_problems("max_tokens", max_tokens, 0))
        if isinstance(conditions, str):
            raise InputError(f"conditions is the text {conditions!r}, expected a list with one condition for each text")
        prefixes = [()] * len(conditions) if prefixes is None else prefixes
        if len(prefixes) != len(conditions):
            raise InputError(f"{len(prefixes)} prefixes for {len(conditions)} conditions: hand in one for each")
        begun = [self._begun(prefix) for prefix in prefixes]
        given = [self._condition(condition) for condition in conditions]
        uniforms = Uniforms(seed, len(begun), max_tokens)
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "rejected": self._rejected}
        written = sample_side_by_side(self.model, begun, given, uniforms, self.eos_id, options)
        return [self.vocabulary.decode(ids) for ids in written]

    def ids(
        self,
        condition: str | None = None,
        max_tokens: int = 400,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        prefix: Any = (),
    ) -> Iterator[int]:
        """Token ids as they are drawn, until the model ends the sequence.

        ``<unk>`` is never drawn: the other tokens share its probability, see
        :func:`rnncore.runtime.text.sampling.sampling_probabilities`.

        Args:
            condition: one of ``labels``; None for a model without.
            max_tokens: stop after so many tokens, even if the sequence has not ended.
            temperature: below 1 is more careful, above 1 more daring; 0 always takes the likeliest token.
            top_k: draw among the k likeliest tokens only.
            top_p: draw among the likeliest tokens that together have this probability.
            seed: of the random numbers; the same one gives the same sequence on the same machine.
            prefix: how the sequence begins: a text, tokens or ids.

        Raises:
            InputError: an option is out of range, or no such condition.
        """
        check_sampling(temperature, top_k, top_p, seed)
        raise_all(count_problems("max_tokens", max_tokens, 0))
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "rejected": self._rejected}
        return self._drawn(self._begun(prefix), self._condition(condition), max_tokens, options, seed)

    def log_prob(self, one: Any, condition: str | None = None) -> float:
        """Natural-log probability that the whole sequence is ``one``: a text, tokens or ids."""
        return float(sum(self._log_probs([one], [condition])[0]))

    def bits(self, many: Sequence[Any], conditions: Sequence[str | None]) -> float:
        """What a token costs on average in these sequences, "end of sequence" included; conditions one for each."""
        if len(many) != len(conditions) or not len(many):
            raise InputError(f"{len(many)} sequences and {len(conditions)} conditions, expected as many, at least one")
        costs = np.concatenate(self._log_probs(many, conditions))
        return float(-costs.mean() / np.log(2))

    def _drawn(
        self, begun: Array, condition: list[Any], max_tokens: int, options: dict[str, Any], seed: int | None
    ) -> Iterator[int]:
        random = np.random.default_rng(seed)
        with self.model.stream() as stream:
            log_probs = stream.push(begun, *condition)[-1]
            for _ in range(max_tokens):
                token_id = draw(sampling_probabilities(log_probs, **options), random)
                if token_id == self.eos_id:
                    return
                yield token_id
                log_probs = stream.push(np.array([token_id], np.int64), *condition)[-1]

    def _log_probs(self, many: Sequence[Any], conditions: Sequence[str | None]) -> list[Array]:
        """Log-probability of every token of each sequence and of its end."""
        begun = [self._begun(one) for one in many]
        given = [self._condition(condition) for condition in conditions]
        columns = [np.array(column) for column in zip(*given, strict=True)]
        outputs = self.model.run(begun, *columns)
        return [
            np.take_along_axis(log_probs, np.append(ids[1:], self.eos_id)[:, None], 1)[:, 0]
            for log_probs, ids in zip(outputs, begun, strict=True)
        ]

    def _begun(self, one: Any) -> Array:
        """ "End of sequence", then the ids of ``one``."""
        ids = as_array(self._read(one))
        if ids.size == 0:
            return np.array([self.eos_id], np.int64)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise InputError(
                f"the sequence is {ids.dtype} {list(ids.shape)}, expected a text, tokens or integers [time]"
            )
        return np.append(np.int64(self.eos_id), ids.astype(np.int64))

    def _condition(self, condition: str | None) -> list[Any]:
        """The condition as further inputs of the model: one number, or none."""
        if not self.labels:
            if condition is not None:
                raise InputError(f"condition is {condition!r}, but this model has none: leave it out")
            return []
        if condition not in self.labels:
            raise UnknownTokenError(f"condition is {condition!r}, expected one of: {', '.join(self.labels)}")
        return [np.int64(self.labels.index(condition))]

    def _inputs_expected(self) -> int:
        return 1 + bool(self.labels)

    def _outputs_expected(self) -> None:
        return None
