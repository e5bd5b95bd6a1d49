"""Is what a generator file writes what its model, read token by token, and the same random numbers give?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from rnncore.export.decoding.bounds import Bounds
from rnncore.export.decoding.tally import Tally
from rnncore.runtime import Model
from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import VerificationError
from rnncore.runtime.text.generation import SpecialTokens, TextGenerator
from rnncore.runtime.text.sampling import sampling_probabilities, token_at

Options = dict[str, Any]
MAX_TOKENS = 13
PREFIXES = (3, 0, 5, 1)  # lengths
CASES: tuple[Options, ...] = (
    {"temperature": 0.0},
    {},
    {"temperature": 1.7, "top_k": 3},
    {"temperature": 0.6, "top_p": 0.8},
    {"top_k": 5, "top_p": 0.9},
)


def check_generator(generator: Model, model: Model, rules: SpecialTokens, seed: int) -> dict[str, Any]:
    """Compare the file with its model, of which whole texts are asked; every input comes from ``seed``.

    Returns the number of tokens compared, of those that were too close a decision to tell, and the largest error of a
    log-probability.  Raises VerificationError.
    """
    random = np.random.default_rng(seed)
    writer = TextGenerator(generator)
    size = int(model.signature.outputs[0].shape[-1])
    bounds = Bounds.of(model.metadata["rnncore.precision"])
    tally = Tally()
    for options in CASES:
        prefixes = [random.integers(0, size, length) for length in PREFIXES]
        uniforms = random.random((len(prefixes), MAX_TOKENS))
        written = writer.generate_ids(prefixes, max_tokens=MAX_TOKENS, uniforms=uniforms, **options)
        again = writer.generate_ids(prefixes, max_tokens=MAX_TOKENS, uniforms=uniforms, **options)
        if any(not np.array_equal(a.ids, b.ids) for a, b in zip(written, again, strict=True)):
            raise VerificationError("the generator writes another text when it runs a second time")
        for row, (ids, log_probs) in enumerate(written):
            tokens = np.append(ids, rules.end)[: len(log_probs)]
            if rules.end in ids:
                raise VerificationError("the generator writes on after the token that ends a text")
            if len(tokens) < MAX_TOKENS and len(log_probs) == len(ids):
                raise VerificationError(f"the generator stopped after {len(tokens)} tokens without the end token")
            whole = log_probs_of(model, rules, prefixes[row], tokens)
            error = float(np.abs(np.take_along_axis(whole, tokens[:, None], 1)[:, 0] - log_probs).max(initial=0.0))
            close = 0
            if not error <= bounds.log_prob * max(1.0, float(np.abs(log_probs).max(initial=0.0))):
                raise VerificationError(f"the generator's log-probabilities are {error:.3g} off those of its model")
            for token, now, uniform in zip(tokens.tolist(), whole, uniforms[row], strict=False):
                expected = token_at(sampling_probabilities(now, **options, rejected=rules.rejected), uniform)
                if token != expected and close_decision(now, uniform, rules, **options) > bounds.decision:
                    raise VerificationError(
                        f"the generator wrote token {token} where its model gives {expected} (options {options})"
                    )
                close += int(token != expected)
            tally = tally.plus(Tally(len(tokens), close, error))
    return {"seed": seed, "tolerance": bounds.log_prob, **asdict(tally)}


def log_probs_of(model: Model, rules: SpecialTokens, prefix: Array, tokens: Array) -> Array:
    """Log-probabilities [tokens, vocabulary] from which each of ``tokens`` was drawn."""
    text = np.concatenate(([rules.start], prefix, tokens[:-1])).astype(np.int64)
    whole: Array = model.run(text[None])[0, len(prefix) :]
    return whole


def close_decision(
    log_probs: Array,
    uniform: float,
    rules: SpecialTokens,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> float:
    """How close a decision was: the smallest change of a probability, or of ``uniform``, that may give another token."""

    def mass(**options: Any) -> Array:
        return sampling_probabilities(log_probs, temperature=temperature or 1.0, rejected=rules.rejected, **options)

    ordered = np.sort(mass())[::-1]
    kept = 1 if temperature == 0 else top_k or len(ordered)
    gaps = [1.0] if kept >= len(ordered) else [float(ordered[kept - 1] - ordered[kept])]
    if temperature == 0:
        return gaps[0]
    if top_p is not None:
        gaps.append(float(np.abs(np.cumsum(np.sort(mass(top_k=top_k))[::-1]) - top_p).min()))
    final = mass(top_k=top_k, top_p=top_p)
    edges = np.cumsum(final)[np.flatnonzero(final)][:-1]
    return min(*gaps, float(np.abs(edges - uniform).min(initial=1.0)))
