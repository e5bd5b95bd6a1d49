"""Golden cases of files that write whole sequences: what they wrote at export, once that was found to be right.

One decision that is closer than rounding gives another text on another processor.  Cases are drawn until none is close,
see :class:`rnncore.export.decoding.bounds.Bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from rnncore.export.decoding import beam_check
from rnncore.export.decoding.answers import Answers, beginning
from rnncore.export.decoding.bounds import Bounds
from rnncore.export.decoding.generator_check import close_decision, log_probs_of
from rnncore.export.decoding.translator_check import smallest_gap
from rnncore.runtime import Model
from rnncore.runtime.arrays import Array
from rnncore.runtime.format.golden import Golden, GoldenCase, StoredArray
from rnncore.runtime.text.generation import SpecialTokens

LENGTHS = (3, 1, 5)
MAX_TOKENS = 7

_DRAWS = 20
_OUTPUT_BYTES = 4_000
_TEMPERATURES = {"likeliest tokens": 0.0, "drawn tokens": 1.0}
_BEAMS = {"likeliest tokens": 1, "beam search": 3}


def golden_generator(generator: Model, model: Model, rules: SpecialTokens, seed: int) -> Golden:
    """One case of the likeliest tokens and one of drawn ones.

    Args:
        generator: the file, verified.
        model: what it was made of, which gives the log-probabilities of whole texts.
    """
    size = int(model.signature.outputs[0].shape[-1])
    batch, bounds = len(LENGTHS), Bounds.of(generator.metadata["rnncore.precision"])

    def draw(random: np.random.Generator, temperature: float) -> dict[str, Array]:
        return {
            "prefix": random.integers(0, size, (batch, max(LENGTHS))),
            "uniforms": random.random((batch, MAX_TOKENS)),
            "max_tokens": np.full(batch, MAX_TOKENS, np.int64),
            "temperature": np.full(batch, temperature),
            "top_k": np.full(batch, size, np.int64),
            "top_p": np.ones(batch),
        }

    def clear(inputs: Mapping[str, Array], answer: Mapping[str, Array]) -> bool:
        for row, length in enumerate(LENGTHS):
            tokens = np.append(answer["ids"][row, : answer["ids_lengths"][row]], rules.end)[:MAX_TOKENS]
            whole = log_probs_of(model, rules, inputs["prefix"][row, :length], tokens)
            temperature = float(inputs["temperature"][row])
            for now, uniform in zip(whole, inputs["uniforms"][row], strict=False):
                if close_decision(now, uniform, rules, temperature=temperature) <= bounds.clear:
                    return False
        return True

    return _golden(generator, _TEMPERATURES, draw, clear, seed)


def golden_translator(file: Model, model: Answers, rejected: tuple[int, ...], seed: int) -> Golden:
    """One case of greedy decoding and one of beam search; ``file``, which never writes ``rejected``, is verified."""

    def draw(random: np.random.Generator, beam: float) -> dict[str, Array]:
        source = random.integers(0, model.source_size, (len(LENGTHS), max(LENGTHS)))
        options = {"max_tokens": np.full(len(LENGTHS), MAX_TOKENS), "beam": np.full(len(LENGTHS), beam, np.int64)}
        return beginning(file, source, **options)

    def clear(inputs: Mapping[str, Array], _: Mapping[str, Array]) -> bool:
        return all(
            smallest_gap(model, source[:length], beam_check.BeamRules(end, beam, MAX_TOKENS, 0.0, rejected))
            > bounds.clear
            for length, source, beam in zip(LENGTHS, inputs["source"], inputs["beam"].tolist(), strict=True)
        )

    end, bounds = model.end_id, Bounds.of(file.metadata["rnncore.precision"])
    return _golden(file, _BEAMS, draw, clear, seed)


def _golden(
    file: Model,
    kinds: Mapping[str, float],
    draw: Callable[[np.random.Generator, float], dict[str, Array]],
    clear: Callable[[Mapping[str, Array], Mapping[str, Array]], bool],
    seed: int,
) -> Golden:
    random, bounds = np.random.default_rng(seed), Bounds.of(file.metadata["rnncore.precision"])
    kept, left_out = [], []
    for name, temperature in kinds.items():
        for _ in range(_DRAWS):
            inputs = draw(random, temperature)
            answer = file.run(**inputs, lengths=np.array(LENGTHS, np.int64))
            if clear(inputs, answer):
                outputs = {output: StoredArray.of(value, _OUTPUT_BYTES) for output, value in answer.items()}
                kept.append(GoldenCase("ragged", len(LENGTHS), max(LENGTHS), inputs, outputs, LENGTHS))
                break
        else:
            left_out.append(f"{name}: in each of {_DRAWS} texts some decision is closer than {bounds.clear:g}")
    return Golden(bounds.log_prob, tuple(kept), tuple(left_out))
