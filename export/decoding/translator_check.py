"""Is what a translator's file writes what its model gives, for sources alone, side by side, step by step, by beams?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncore.export.decoding.answers import Answers, beginning, what_follows
from rnncore.export.decoding.beam_check import BeamRules, best_of, check_found
from rnncore.export.decoding.bounds import Bounds
from rnncore.export.decoding.tally import Tally
from rnncore.export.verification.judging import INT8_RMS
from rnncore.runtime import Model
from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import VerificationError
from rnncore.runtime.format.comparison import rms_error
from rnncore.runtime.text.translator import Translator, read_found

LENGTHS = (4, 1, 0, 9, 2)
MAX_TOKENS = 11
SEARCHES = ((2, 0.0, 6), (5, 0.8, 5), (1, 0.5, 4), (3, 1.2, 6), (4, 0.0, 1))
"""(beam, length penalty, most tokens) of searches in one call.  Short: the more decisions, the likelier one of them is
closer than rounding.
"""


def check_translator(file: Model, model: Answers, seed: int) -> dict[str, Any]:
    """Compare the file with ``model``, for an int8 file itself asked for single steps; sources come from ``seed``.

    Every token that the file writes must be the likeliest one that the model gives after those before it, but for
    decisions that are closer than rounding and tokens that are never written; a beam search must find what the same search
    over ``model`` finds.  Returns the number of tokens compared, of close ones among them, of beam searches, of those with
    a close decision, and the largest error of a log-probability.  Raises VerificationError.
    """
    random = np.random.default_rng(seed)
    translator = Translator(file)
    bounds = Bounds.of(file.metadata["rnncore.precision"])
    tolerance = bounds.log_prob
    tally = Tally()
    sources = [random.integers(0, model.source_size, length) for length in LENGTHS]
    together = translator.translate_ids(sources, max_tokens=MAX_TOKENS)
    alone = [translator.translate_ids([source], max_tokens=MAX_TOKENS)[0] for source in sources]
    stepwise = translator.translate_ids(sources, max_tokens=MAX_TOKENS, beam=2, one_call=False)
    for source, *found in zip(sources, together, alone, stepwise, strict=True):
        for way, (best, *_) in zip(("side by side", "alone", "step by step"), found, strict=True):
            ended = len(best.ids) < MAX_TOKENS
            tokens = np.append(best.ids, model.end_id) if ended else best.ids
            whole = model.log_probs(source, tokens[None, :-1])[0]
            own = np.take_along_axis(whole, tokens[:, None], 1)[:, 0]
            error = abs(float(own.sum()) - best.log_prob)
            if not error <= tolerance * max(1.0, abs(best.log_prob)) * len(tokens):
                raise VerificationError(f"a translation {way} is given a log-probability that is {error:.3g} wrong")
            tally = tally.plus(Tally(len(tokens), max_abs=error))
            if way == "step by step":
                continue  # of a beam it is the whole sequence that is likeliest, not each token
            allowed = np.delete(whole, translator.wiring.rejected, 1)
            if np.isin(tokens, translator.wiring.rejected).any():
                raise VerificationError(
                    f"{way} the file writes a token of {translator.wiring.rejected}, which are rejected"
                )
            gaps = allowed.max(1) - own
            if (gaps > bounds.decision).any():
                at = int(np.argmax(gaps > bounds.decision))
                raise VerificationError(
                    f"{way} the file writes token {tokens[at]}, which is {gaps[at]:.3g} less likely than what the model gives"
                )
            tally = tally.plus(Tally(close=int((gaps > 0).sum())))
    searches, of_beams = _check_beams(translator, model, random, bounds)
    both = tally.plus(of_beams)
    numbers = {"tokens": both.tokens, "close": tally.close, "max_abs": both.max_abs}
    return {"seed": seed, "tolerance": tolerance, **numbers, "searches": searches, "close_searches": of_beams.close}


def _check_beams(
    translator: Translator, model: Answers, random: np.random.Generator, bounds: Bounds
) -> tuple[int, Tally]:
    """Beam search in the graph: the number of searches, and what was found; a search with a close decision counts as one."""
    file, rejected = translator.model, translator.wiring.rejected
    lengths = np.array(2 * LENGTHS)
    source = random.integers(0, model.source_size, (len(lengths), max(LENGTHS)))
    beams, penalties, limits = (np.array(2 * column) for column in zip(*SEARCHES, strict=True))
    options = {"beam": beams, "length_penalty": penalties, "max_tokens": limits}
    answer = file.run(**beginning(file, source, **options), lengths=lengths)
    tally = Tally()
    for row, length, found, (beam, penalty, limit) in zip(
        source, lengths, read_found(answer), 2 * SEARCHES, strict=True
    ):
        after, end = what_follows(model, row[:length]), model.end_id
        tally = tally.plus(check_found(found, after, BeamRules(end, beam, limit, penalty, rejected), bounds))
    _check_best(answer, model.end_id, bounds.log_prob)
    return len(lengths), tally


def _check_best(answer: Mapping[str, Array], end: int, tolerance: float) -> None:
    """Are the outputs for those who ask for one target those of the first of all that were found?"""
    for name in ("ids", "ids_lengths"):
        if not np.array_equal(answer[name], answer[f"beam.{name}"][:, 0]):
            raise VerificationError(f"the file's output {name} is not the first of beam.{name}")
    log_probs, whole = answer["log_probs"].astype(np.float64), answer["beam.log_prob"][:, 0]
    beyond = np.arange(log_probs.shape[1]) > answer["ids_lengths"][:, None]
    if (answer["ids"][beyond] != end).any() or log_probs[beyond].any():
        raise VerificationError("the file's outputs ids and log_probs go on where a target has ended")
    error = float(np.abs(log_probs.sum(1) - whole).max())
    if not error <= tolerance * max(1.0, float(np.abs(whole).max())):
        raise VerificationError(f"the file's output log_probs is {error:.3g} off beam.log_prob")


def smallest_gap(model: Answers, source: Array, rules: BeamRules) -> float:
    """By how much log-probability whatever is kept on the way to the targets is ahead of the next, where that is least."""
    return best_of(what_follows(model, source), rules)[1]


def check_int8(file: Answers, model: Answers, seed: int) -> float:
    """How far the int8 ``file`` is from PyTorch's ``model`` on random sources and beginnings of targets.

    Returns the largest root mean square of the error, as a part of that of PyTorch's log-probabilities.  Raises
    VerificationError where that is more than an int8 file of any kind may lose.
    """
    random = np.random.default_rng(seed)
    worst = 0.0
    for length in LENGTHS:
        source = random.integers(0, model.source_size, length)
        size = model.log_probs(source, np.zeros((1, 0), np.int64)).shape[-1]
        begun = random.integers(0, size, (3, MAX_TOKENS))
        worst = max(worst, rms_error([(file.log_probs(source, begun), model.log_probs(source, begun))]))
    if not worst <= INT8_RMS:
        raise VerificationError(
            f"in float32 the file is right, in int8 its log-probabilities are {worst:.1%} rms off PyTorch's (allowed are "
            f"{INT8_RMS:.0%}): export this model without quantize"
        )
    return worst
