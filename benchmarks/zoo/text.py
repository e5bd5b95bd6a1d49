"""Language: models, taggers, recommenders of sequences."""

from __future__ import annotations

import torch

from benchmarks.zoo.subject import Subject, entry


@entry("flair", "LanguageModel")
def _flair() -> Subject:
    import transformers

    transformers.LayoutLMv2FeatureExtractor = object  # a name that flair imports and newer versions lack
    from flair.data import Dictionary
    from flair.models import LanguageModel

    dictionary = Dictionary()
    for letter in "abcdefghijklmnopqrst":
        dictionary.add_item(letter)
    module = LanguageModel(dictionary, True, 16, 1, embedding_size=12)
    state = (torch.zeros(1, 1, 16), torch.zeros(1, 1, 16))
    return Subject(
        module,
        lambda b, t: (torch.randint(20, (t, b)), tuple(s.expand(1, b, 16).clone() for s in state)),
        causal=True,
    )
