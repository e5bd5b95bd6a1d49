"""A trained language model and counted n-grams as one model; how much each is trusted is learnt from held-out text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rnncore.models import InterpolatedLanguageModel, LanguageModel, Ngrams
from rnncore.runtime.errors import InputError
from rnncore.text import count_ngrams

Numbers = NDArray[np.float64]
Ids = NDArray[np.int64]

_ROUNDS = 50
_PRIOR_TOKENS = 50.0  # as many held-out tokens as these say that a context of any length is like all others
_STEPS = 1024


def interpolate(
    model: LanguageModel,
    training: Sequence[Ids],
    held_out: Sequence[Ids],
    *,
    eos_id: int,
    order: int,
    most_entries: int | None = 600_000,
    most_successors: int | None = 256,
) -> InterpolatedLanguageModel:
    """``model`` mixed with Kneser-Ney n-grams, which are counted in about a second; it exports and streams as ``model`` does.

    What the recurrent layers have not learnt, such as rare names and whole phrases that come again, n-grams have seen; on
    small corpora the two together are much better than either.  How much each is trusted is learnt for every length
    of the longest known context, by expectation maximisation (Jelinek and Mercer 1980) on ``held_out``.

    Args:
        model: trained; copied, and put into evaluation mode in the result.
        training: token ids of each text, int64 [tokens], without ``<eos>``.
        held_out: the same, of texts that neither was trained on.
        eos_id: id of ``<eos>``.
        order: tokens of the longest n-gram, at least 2; 10 is good for characters, 5 for words.
        most_entries: as for :func:`rnncore.text.count_ngrams`: the size of the tables, about 12 to 24 bytes an n-gram.
        most_successors: as there; what a step costs grows with it.

    Raises:
        InputError: there are no texts in one of the two, an id or a number is out of range.
    """
    if not held_out:
        raise InputError("held_out has no texts: how much to trust each model is learnt from them")
    if order < 2:
        raise InputError(f"order is {order}, expected at least 2: a token and one before it")
    size = model.config.vocabulary_size
    levels = count_ngrams(
        training,
        order,
        eos_id=eos_id,
        vocabulary_size=size,
        most_entries=most_entries,
        most_successors=most_successors,
    )
    ngrams = Ngrams.of(levels, size)
    mixed = InterpolatedLanguageModel(model.config, ngrams.sizes)
    mixed.recurrent.load_state_dict(model.state_dict())
    mixed.ngrams.load_state_dict(ngrams.state_dict())
    mixed.eval()
    mixed.share.copy_(torch.from_numpy(_shares(*_asked(mixed, held_out, eos_id), order)))
    return mixed


@torch.no_grad()
def _asked(model: InterpolatedLanguageModel, texts: Sequence[Ids], eos_id: int) -> tuple[Numbers, Numbers, Ids]:
    """Of every token of ``texts``: its probability by both models, and how long the longest known context is."""
    recurrent, counted, lengths = [], [], []
    for text in texts:
        for start in range(0, len(text) + 1, _STEPS):
            tokens = np.concatenate(([eos_id], text, [eos_id])).astype(np.int64)[start : start + _STEPS + 1]
            read, asked = torch.from_numpy(tokens[None, :-1]), torch.from_numpy(tokens[None, 1:, None])
            log_probs, probabilities, longest = model.parts(read)
            recurrent.append(log_probs.gather(2, asked).flatten().double().exp().numpy())
            counted.append(probabilities.gather(2, asked).flatten().double().numpy())
            lengths.append(longest.flatten().numpy())
    return np.concatenate(recurrent), np.concatenate(counted), np.concatenate(lengths)


def _shares(recurrent: Numbers, counted: Numbers, lengths: Ids, order: int) -> Numbers:
    """The recurrent model's share for every length of context, 0 to ``order`` - 1."""
    shares = np.full(order, 0.5)
    tokens = np.bincount(lengths, minlength=order)
    for _ in range(_ROUNDS):
        own = shares[lengths] * recurrent
        by_recurrent = own / (own + (1.0 - shares[lengths]) * counted)
        like_all = _PRIOR_TOKENS * by_recurrent.mean()
        shares = (np.bincount(lengths, by_recurrent, order) + like_all) / (tokens + _PRIOR_TOKENS)
    return shares
