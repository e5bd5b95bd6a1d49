"""``Vocabulary``: text to token ids and back, through the ``tokenizers`` library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rnncore.runtime.errors import InputError, MissingExtraError, ModelFileError, UnknownTokenError, raise_all
from rnncore.runtime.interrupts import from_signal_handler
from rnncore.runtime.text.columns import read_texts
from rnncore.runtime.text.special_tokens import ENDS, UNK, end_token, unknown_token

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer

# Encoding one long text is slower than many short ones, and holds an object for each character; a character-level text
# may be cut anywhere.
_BLOCK = 1 << 14
_SHOWN = 5


class Vocabulary:
    """The tokens of a text model: every ``tokenizers`` tokenizer that has a token which ends a text.

    That is ``<eos>``, or one of the names that others give it: ``</s>``, ``<|endoftext|>``, ``[SEP]`` (see
    :data:`rnncore.runtime.text.special_tokens.ENDS`).  What the tokenizer does not know is its own unknown token.
    Special tokens are never read from text: the five characters ``<eos>`` in a text are five characters.  Texts are read as the
    tokenizer's normalizer makes them: one of ``character_vocabulary(texts, lowercase=True)`` takes capitals for small letters.
    They are read whole and always alike, whatever truncation, padding or dropout the tokenizer was trained with.

    Raises:
        ModelFileError: the tokenizer has no such token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._ids = tokenizer.get_vocab(with_added_tokens=True)
        eos = end_token(self._ids)
        if eos is None:
            raise ModelFileError(
                f"the tokenizer has no token {ENDS[0]!r}, which marks the end of a text, nor any of {', '.join(ENDS[1:])}: "
                "add one and export again"
            )
        tokenizer.add_special_tokens([eos])  # one that is an ordinary token so far would be read from texts
        tokenizer.encode_special_tokens = True
        _read_whole(tokenizer)
        self._tokenizer = tokenizer
        self.eos_id: int = self._ids[eos]
        self.unk_id: int | None = self._ids.get(UNK)
        if self.unk_id is None:  # to write a large tokenizer out takes time, and only its text says which token that is
            self.unk_id = unknown_token(json.loads(tokenizer.to_str())["model"], self._ids)
        ordinary = self._ids.keys() - {eos}
        self.is_character_level = all(len(token) == 1 for token in ordinary)
        self._characters = frozenset(ordinary) if self.is_character_level else None
        self._by_character = tokenizer.normalizer is None or type(tokenizer.normalizer).__name__ == "Lowercase"
        self._cuts_at_blanks = type(tokenizer.model).__name__ == "WordLevel" and (
            tokenizer.pre_tokenizer is None or type(tokenizer.pre_tokenizer).__name__ == "WhitespaceSplit"
        )

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Read the JSON of a tokenizer.

        Raises:
            ModelFileError: it is not one, or has no ``<eos>``.
            MissingExtraError: the package ``tokenizers`` is not installed.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingExtraError("tokenizers", "text", "reading and writing text") from None
        try:
            tokenizer = Tokenizer.from_str(text)
        except BaseException as error:  # the library raises nothing more specific
            _pass_on_others(error)
            raise ModelFileError(
                f"the tokenizer in the file cannot be read ({error}): export the model again"
            ) from None
        return cls(tokenizer)

    def to_json(self) -> str:
        """The tokenizer as JSON; :meth:`from_json` reads it."""
        text: str = self._tokenizer.to_str()
        return text

    def __len__(self) -> int:
        """Number of tokens, ``<eos>`` included."""
        return max(self._ids.values()) + 1

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def token(self, token_id: int) -> str:
        """The token with this id; raises InputError when there is none."""
        token: str | None = self._tokenizer.id_to_token(token_id) if 0 <= token_id < len(self) else None
        if token is None:
            raise InputError(f"token id is {token_id}, expected 0 to {len(self) - 1}")
        return token

    def token_id(self, token: str) -> int:
        """The id of one token; raises UnknownTokenError when the vocabulary lacks it."""
        if token not in self._ids:
            self._check_characters(token)
            raise UnknownTokenError(f"{token!r} is not one of the model's {len(self)} tokens")
        return self._ids[token]

    def encode(self, text: str) -> np.ndarray:
        """Token ids of ``text``, int64 [tokens], without ``<eos>``.

        Raises:
            UnknownTokenError: the text holds something the vocabulary lacks; names it and says where.
        """
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As :meth:`encode` for each text, much faster; an error is that of the first text that has one.

        texts: a list, or a column of NumPy, pandas, polars or Arrow; InputError for one that is missing, by its place.
        """
        texts = read_texts(texts)
        for text in texts:
            self._check_characters(text)
        blocks = [self._blocks(text) for text in texts]
        try:
            encodings = iter(
                self._tokenizer.encode_batch_fast([b for own in blocks for b in own], add_special_tokens=False)
            )
        except BaseException as error:  # a word-level model without an unknown token, say
            _pass_on_others(error)
            if from_signal_handler(error):
                raise
            raise UnknownTokenError(f"the text cannot be written in the model's {len(self)} tokens: {error}") from None
        parts = [[np.asarray(next(encodings).ids, np.int64) for _ in own] for own in blocks]
        return [self._without_ends(np.concatenate(own)) if own else np.zeros(0, np.int64) for own in parts]

    def encode_tokens(self, tokens: Sequence[str], *, where: str = "") -> np.ndarray:
        """One id for each of the tokens that somebody else has cut, int64 [tokens], whatever characters are inside.

        A vocabulary of :func:`rnncore.text.token_vocabulary` reads ``New York`` as the one token that it is in the list, and one
        that it lacks as its unknown token; if it has no token with blanks inside at all, such a token is taken for a text and
        refused.  Other tokenizers cut by rules of their own: what they would cut is refused.  ``where`` is put in front of
        messages.

        Raises:
            UnknownTokenError: names every token that is none, or several, of the vocabulary.
        """
        texts = read_texts(tokens, f"{where}token")
        if self._cuts_at_blanks:
            ids = [self._id_of_whole(text) for text in texts]
        else:
            ids = [int(part[0]) if len(part) == 1 else None for part in self.encode_many(texts)]
        wrong = [f"{where}token {i} is {texts[i]!r}" for i, one in enumerate(ids) if one is None]
        title = "each of these is no single token of the model: hand in the whole text instead"
        raise_all(wrong, UnknownTokenError, title=title)
        return np.array(ids, np.int64)

    def _id_of_whole(self, token: str) -> int | None:
        normalizer = self._tokenizer.normalizer
        read = token if normalizer is None else normalizer.normalize_str(token)
        found = self._ids.get(self._strip.normalize_str(read))
        if found is not None and found != self.eos_id:
            return found
        if self.unk_id is None:
            return None
        ids = self.encode(token)
        if len(ids) == 1:
            return int(ids[0])
        return self.unk_id if self._has_blanks else None

    @cached_property
    def _strip(self) -> Normalizer:
        """Takes the blanks around a token away, those that a text is cut at; Python's ``strip`` knows others."""
        from tokenizers import normalizers

        return normalizers.Strip()

    @cached_property
    def _has_blanks(self) -> bool:
        return any(len(token.split()) > 1 for token in self._ids)

    def _without_ends(self, ids: np.ndarray) -> np.ndarray:
        """The unknown token where a text spells the token that ends texts, which some tokenizers of others read as that."""
        ends = ids == self.eos_id
        if not ends.any():
            return ids
        if self.unk_id is None:
            raise UnknownTokenError(f"the text holds {self.token(self.eos_id)!r}, which ends a text: take it out")
        return np.where(ends, self.unk_id, ids)

    def pieces(self, text: str) -> list[str]:
        """``text`` cut so that each piece is what one of its tokens stands for, blanks before it included.

        As many as :meth:`encode` gives tokens, and together the text, but for blanks at its end.  A character that several
        tokens share (a letter of several bytes, in a vocabulary of bytes) belongs to the first of them.
        """
        self._check_characters(text)
        ends = [end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]
        starts = [0, *ends]
        return [text[start:end] for start, end in zip(starts, ends, strict=False)]

    def _blocks(self, text: str) -> list[str]:
        if self._characters is None or not self._by_character:
            return [text]
        return [text[start : start + _BLOCK] for start in range(0, len(text), _BLOCK)]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token ids [tokens]; ``<eos>`` is left out.  Raises InputError for ids out of range."""
        array = np.asarray(ids)
        if array.size == 0:
            return ""
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(f"token ids have dtype {array.dtype} and shape {array.shape}, expected integers [tokens]")
        if array.min() < 0 or array.max() >= len(self):
            raise InputError(f"token ids are {array.min()} to {array.max()}, expected 0 to {len(self) - 1}")
        text: str = self._tokenizer.decode(array.tolist(), skip_special_tokens=True)
        return text

    def _check_characters(self, text: str) -> None:
        if self._characters is None:
            return
        normalizer = self._tokenizer.normalizer
        if normalizer is None:
            unknown = set(text) - self._characters
        elif set(normalizer.normalize_str(text)) <= self._characters:
            return
        else:
            own = {character: normalizer.normalize_str(character) for character in set(text)}
            unknown = {character for character, read in own.items() if not self._characters.issuperset(read)}
            unknown = unknown or set(text)  # together they make something that none of them is alone
        if unknown:
            raise UnknownTokenError(_unknown_message(text, unknown, len(self._characters)))


def _read_whole(tokenizer: Tokenizer) -> None:
    """Forget what files of others set up for training: texts cut or filled up to some length, merges left out at random."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None


def _pass_on_others(error: BaseException) -> None:
    """Raise what is no failure of the library: Ctrl-C, say.  Its panics are no ``Exception`` either, but failures."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def unknown_token_id(tokenizer: str | None) -> int | None:
    """The id of the unknown token in the JSON of a tokenizer, None if there is none; needs no ``tokenizers``."""
    if tokenizer is None:
        return None
    try:
        data = json.loads(tokenizer)
        added = {token["content"]: token["id"] for token in data.get("added_tokens") or ()}
        known = data["model"]["vocab"]
        if isinstance(known, list):  # Unigram: pairs of token and score
            known = {token: i for i, (token, _) in enumerate(known)}
        found = unknown_token(data["model"], {**known, **added})
        return None if found is None else int(found)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ModelFileError(f"the tokenizer in the file cannot be read ({error!r}): export the model again") from None


def _unknown_message(text: str, unknown: Iterable[str], known: int) -> str:
    left = set(unknown)
    total = len(left)
    named = []
    for place, character in enumerate(text):
        if character in left:
            left.remove(character)
            named.append(f"{character!r} (U+{ord(character):04X}) at position {place}")
            if len(named) == min(_SHOWN, total):
                break
    more = f" and {total - len(named)} more" if total > len(named) else ""
    them = "it" if total == 1 else "them"
    return (
        f"unknown character{'' if total == 1 else 's'} {', '.join(named)}{more}: the model knows {known} characters; "
        f"replace or remove {them}, or train on a text that has {them}"
    )
