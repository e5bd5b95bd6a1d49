"""A vocabulary of single characters."""

from __future__ import annotations

from collections.abc import Iterable

from rnncore.runtime.errors import InputError, MissingExtraError
from rnncore.runtime.text.special_tokens import EOS
from rnncore.runtime.text.vocabulary import Vocabulary


def character_vocabulary(texts: Iterable[str], *, lowercase: bool = False) -> Vocabulary:
    """Every character of ``texts`` as one token, in code-point order after ``<eos>``, which has id 0.

    There is no token for unknown characters: encoding one raises UnknownTokenError, since a model has nothing to say
    about it.

    Args:
        texts: where the characters are taken from.
        lowercase: read capitals as small letters, in these texts and in every text that the exported file is asked about:
            the file holds this with its tokens.

    Raises:
        InputError: no character at all, or lone surrogates, which no Unicode text has.
    """
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    except ImportError:
        raise MissingExtraError("tokenizers", "text", "a character vocabulary") from None
    found = set().union(*texts)
    characters = sorted(set(normalizers.Lowercase().normalize_str("".join(found))) if lowercase else found)
    if not characters:
        raise InputError("the texts hold no character: a vocabulary needs at least one")
    surrogates = [character for character in characters if "\ud800" <= character <= "\udfff"]
    if surrogates:
        raise InputError(f"the texts hold lone surrogates, such as {surrogates[0]!r}: read the file as valid UTF-8")
    ids = {EOS: 0} | {character: number for number, character in enumerate(characters, start=1)}
    # The library wants an unknown token for its model; Vocabulary refuses unknown characters before they get there.
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=EOS))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([EOS])
    return Vocabulary(tokenizer)
