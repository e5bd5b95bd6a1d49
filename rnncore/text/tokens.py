"""A vocabulary of tokens that somebody else has cut, such as the words of an address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rnncore.runtime.errors import InputError, MissingExtraError
from rnncore.runtime.text.special_tokens import EOS, UNK
from rnncore.runtime.text.vocabulary import Vocabulary


def token_vocabulary(
    sequences: Iterable[Sequence[str]],
    size: int = 10_000,
    *,
    least_count: int = 1,
    fold: bool = True,
    strip: bool = False,
) -> Vocabulary:
    """The most frequent tokens of ``sequences``, after ``<eos>`` (id 0) and ``<unk>`` (id 1).

    A token is what the lists hold, with any characters inside, blanks too; ``Vocabulary.encode_tokens`` reads such lists.  A
    text is cut at blanks and nowhere else, so that taggers give one label for each.  Everything else is read as ``<unk>``.

    Args:
        sequences: what to count.
        size: most tokens, ``<eos>`` and ``<unk>`` included.
        least_count: a token that occurs less often is unknown.
        fold: read capitals as small letters, and every digit as 0: ``52nd`` and ``41ND`` are one token, ``00nd``.
        strip: read a token without the punctuation behind it: ``Road,`` is ``road``.  Punctuation alone stays what it is.

    Raises:
        InputError: no token is left, or size is below 3.
    """
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    except ImportError:
        raise MissingExtraError("tokenizers", "text", "a vocabulary of tokens") from None
    if size < 3:
        raise InputError(f"the size of the vocabulary is {size}, expected at least 3: {EOS}, {UNK} and a token")
    # Special tokens are never read from text, and nothing but this would keep a whole token "<eos>" from being one.
    plain = normalizers.Replace(Regex(rf"(?<!\S){EOS}(?!\S)"), UNK)
    folds = [normalizers.Lowercase(), normalizers.Replace(Regex("[0-9]"), "0")] if fold else []
    strips = [normalizers.Replace(Regex(r"(?<=\w)[^\w\s]+(?!\S)"), "")] if strip else []
    normalizer = normalizers.Sequence([*folds, *strips, plain])
    splitter = pre_tokenizers.WhitespaceSplit()
    around = normalizers.Strip()  # blanks as the splitter knows them, which Python's strip does not
    counts: Counter[str] = Counter()
    for tokens in sequences:
        counts.update(around.normalize_str(normalizer.normalize_str(token)) for token in tokens)
    del counts[""]
    frequent = sorted((-count, token) for token, count in counts.items() if count >= least_count)
    if not frequent:
        raise InputError(f"no token occurs {least_count} times: a vocabulary needs at least one")
    known = [token for _, token in frequent if token != UNK][: size - 2]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate([EOS, UNK, *known])}, unk_token=UNK))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens([EOS])
    return Vocabulary(tokenizer)
