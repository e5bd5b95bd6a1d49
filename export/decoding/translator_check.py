"""Is what a translator's file writes what its PyTorch model gives, for sources alone, side by side, step by step, by beams?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rnncore.export.decoding.beam_check import After, BeamRules, Tokens, best_of, check_found
from rnncore.export.decoding.tally import Tally
from rnncore.export.verification.reference import TOLERANCE
from rnncore.models.encoder_decoder import EncoderDecoder
from rnncore.runtime import Model
from rnncore.runtime.arrays import Array
from rnncore.runtime.errors import VerificationError
from rnncore.runtime.text.translator import Translator, read_found

LENGTHS = (4, 1, 0, 9, 2)
MAX_TOKENS = 11
SEARCHES = ((2, 0.0, 6), (5, 0.8, 5), (1, 0.5, 4), (3, 1.2, 6), (4, 0.0, 1))
"""(beam, length penalty, most tokens) of searches in one call.  Short: the more decisions, the likelier one of them is
closer than rounding.
"""


def check_translator(file: Model, model: EncoderDecoder, seed: int) -> dict[str, Any]:
    """Compare the file with ``model``; sources come from ``seed``.

    Every token that the file writes must be the likeliest one that the model gives after those before it, but for
    decisions that are closer than rounding and tokens that are never written; a beam search must find what the same search
    over ``model`` finds.  Returns the number of tokens compared, of close ones among them, of beam searches, of those with
    a close decision, and the largest error of a log-probability.  Raises VerificationError.
    """
    random = np.random.default_rng(seed)
    translator = Translator(file)
    tolerance = TOLERANCE.get(file.metadata["rnncore.precision"], TOLERANCE["float32"])
    tally = Tally()
    sources = [random.integers(0, model.config.source_size, length) for length in LENGTHS]
    together = translator.translate_ids(sources, max_tokens=MAX_TOKENS)
    alone = [translator.translate_ids([source], max_tokens=MAX_TOKENS)[0] for source in sources]
    stepwise = translator.translate_ids(sources, max_tokens=MAX_TOKENS, beam=2, one_call=False)
    for source, *found in zip(sources, together, alone, stepwise, strict=True):
        for way, (best, *_) in zip(("side by side", "alone", "step by step"), found, strict=True):
            ended = len(best.ids) < MAX_TOKENS
            tokens = np.append(best.ids, model.config.end_id) if ended else best.ids
            whole = _log_probs(model, source, tokens)
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
            if (gaps > tolerance).any():
                at = int(np.argmax(gaps > tolerance))
                raise VerificationError(
                    f"{way} the file writes token {tokens[at]}, which is {gaps[at]:.3g} less likely than what the model gives"
                )
            tally = tally.plus(Tally(close=int((gaps > 0).sum())))
    searches, of_beams = _check_beams(translator, model, random, tolerance)
    both = tally.plus(of_beams)
    numbers = {"tokens": both.tokens, "close": tally.close, "max_abs": both.max_abs}
    return {"seed": seed, "tolerance": tolerance, **numbers, "searches": searches, "close_searches": of_beams.close}


def beginning(file: Model, source: Array, **options: Array) -> dict[str, Array]:
    """All inputs but the lengths, for decoding ``source`` [batch, time] from the beginning; zero where nothing reads them."""
    inputs = {"source": source, "token": np.full(len(source), -1, np.int64), **options}
    for port in file.signature.inputs:
        shape = [len(source), *(axis if isinstance(axis, int) else 1 for axis in port.shape[1:])]
        inputs.setdefault(port.name, np.zeros(shape, port.dtype))
    return inputs


def _check_beams(
    translator: Translator, model: EncoderDecoder, random: np.random.Generator, tolerance: float
) -> tuple[int, Tally]:
    """Beam search in the graph: the number of searches, and what was found; a search with a close decision counts as one."""
    file, rejected = translator.model, translator.wiring.rejected
    lengths = np.array(2 * LENGTHS)
    source = random.integers(0, model.config.source_size, (len(lengths), max(LENGTHS)))
    beams, penalties, limits = (np.array(2 * column) for column in zip(*SEARCHES, strict=True))
    options = {"beam": beams, "length_penalty": penalties, "max_tokens": limits}
    answer = file.run(**beginning(file, source, **options), lengths=lengths)
    tally = Tally()
    for row, length, found, (beam, penalty, limit) in zip(
        source, lengths, read_found(answer), 2 * SEARCHES, strict=True
    ):
        after, end = what_follows(model, row[:length]), model.config.end_id
        tally = tally.plus(check_found(found, after, BeamRules(end, beam, limit, penalty, rejected), tolerance))
    _check_best(answer, model.config.end_id, tolerance)
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


def smallest_gap(model: EncoderDecoder, source: Array, rules: BeamRules) -> float:
    """By how much log-probability whatever is kept on the way to the targets is ahead of the next, where that is least."""
    return best_of(what_follows(model, source), rules)[1]


def what_follows(model: EncoderDecoder, source: Array) -> After:
    """What ``model`` gives after any beginning of a target of ``source`` [time], each computed from the beginning."""

    def after(beginnings: list[Tokens]) -> Array:
        return _all_log_probs(model, source, np.array(beginnings, np.int64).reshape(len(beginnings), -1))[:, -1]

    return after


def _log_probs(model: EncoderDecoder, source: Array, tokens: Array) -> Array:
    """Log-probabilities [tokens, target_size] of the model, of what comes where each of ``tokens`` was written."""
    return _all_log_probs(model, source, tokens[None, :-1])[0]


def _all_log_probs(model: EncoderDecoder, source: Array, begun: Array) -> Array:
    """Log-probabilities [targets, tokens + 1, target_size] of what comes after each token of ``begun`` [targets, tokens]."""
    device, targets = model.head.weight.device, len(begun)
    ids = torch.from_numpy(source if len(source) else np.zeros(1, np.int64)).expand(targets, -1).to(device)
    read = torch.from_numpy(np.pad(begun, ((0, 0), (1, 0)), constant_values=model.config.end_id)).to(device)
    with torch.no_grad():
        log_probs = model(ids, torch.full((targets,), len(source), device=device), read)
    result: Array = log_probs.double().cpu().numpy()
    return result
