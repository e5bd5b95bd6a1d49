"""Is what a translator's file writes what its PyTorch model gives, for sources alone, side by side, and step by step?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rnncore.export.proof.reference import TOLERANCE
from rnncore.models.encoder_decoder import EncoderDecoder
from rnncore.runtime import Model
from rnncore.runtime.errors import VerificationError
from rnncore.runtime.files.layout import Array
from rnncore.runtime.text.translator import Translator

LENGTHS = (4, 1, 0, 9, 2)
MAX_TOKENS = 11


def check_translator(file: Model, model: EncoderDecoder, seed: int) -> dict[str, Any]:
    """Compare the file with ``model``; sources come from ``seed``.

    Every token that the file writes must be the likeliest one that the model gives after those before it, but for
    decisions that are closer than rounding.  Returns the number of tokens compared, of close ones among them, and the
    largest error of a log-probability.  Raises VerificationError.
    """
    random = np.random.default_rng(seed)
    translator = Translator(file)
    tolerance = TOLERANCE.get(file.metadata["rnncore.precision"], TOLERANCE["float32"])
    report = {"seed": seed, "tolerance": tolerance, "tokens": 0, "close": 0, "max_abs": 0.0}
    sources = [random.integers(0, model.config.source_size, length) for length in LENGTHS]
    together = translator.translate_ids(sources, max_tokens=MAX_TOKENS)
    alone = [translator.translate_ids([source], max_tokens=MAX_TOKENS)[0] for source in sources]
    stepwise = translator.translate_ids(sources, max_tokens=MAX_TOKENS, beam=2)
    for source, *found in zip(sources, together, alone, stepwise, strict=True):
        for way, (best, *_) in zip(("side by side", "alone", "step by step"), found, strict=True):
            ended = len(best.ids) < MAX_TOKENS
            tokens = np.append(best.ids, model.config.end_id) if ended else best.ids
            whole = _log_probs(model, source, tokens)
            own = np.take_along_axis(whole, tokens[:, None], 1)[:, 0]
            error = abs(float(own.sum()) - best.log_prob)
            report["max_abs"] = max(report["max_abs"], error)
            if not error <= tolerance * max(1.0, abs(best.log_prob)) * len(tokens):
                raise VerificationError(f"a translation {way} is given a log-probability that is {error:.3g} wrong")
            report["tokens"] += len(tokens)
            if way == "step by step":
                continue  # of a beam it is the whole sequence that is likeliest, not each token
            gaps = whole.max(1) - own
            if (gaps > tolerance).any():
                at = int(np.argmax(gaps > tolerance))
                raise VerificationError(
                    f"{way} the file writes token {tokens[at]} where the model gives {whole[at].argmax()}"
                )
            report["close"] += int((gaps > 0).sum())
    return report


def smallest_gap(model: EncoderDecoder, source: Array, ids: Array, max_tokens: int) -> float:
    """By how much probability the likeliest token is ahead of the next one, where that is least, on the way to ``ids``."""
    tokens = np.append(ids, model.config.end_id)[:max_tokens]
    probabilities = np.sort(np.exp(_log_probs(model, source, tokens)), axis=1)
    return float((probabilities[:, -1] - probabilities[:, -2]).min())


def _log_probs(model: EncoderDecoder, source: Array, tokens: Array) -> Array:
    """Log-probabilities [tokens, target_size] of the model, of what comes where each of ``tokens`` was written."""
    device = model.head.weight.device
    ids = torch.from_numpy(source if len(source) else np.zeros(1, np.int64))[None].to(device)
    read = torch.from_numpy(np.concatenate(([model.config.end_id], tokens[:-1])).astype(np.int64))[None].to(device)
    with torch.no_grad():
        log_probs = model(ids, torch.tensor([len(source)], device=device), read)
    result: Array = log_probs[0].double().cpu().numpy()
    return result
