"""Reading and splitting a corpus."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.runtime import InputError
from rnncore.text import Corpus, python_corpus, read_corpus


def write(path: Path, data: bytes) -> Path:
    file = path / "corpus.txt"
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("texts_by", "texts"),
    [
        ("paragraph", ("a\nb", "  c", "d")),
        ("line", ("a", "b", "c", "d")),
        ("file", ("\n\na\nb\n \n\n  c\n\nd\n",)),
    ],
)
def test_texts_are_paragraphs_lines_or_the_file(tmp_path: Path, texts_by: str, texts: tuple[str, ...]) -> None:
    file = write(tmp_path, b"\xef\xbb\xbf\r\n\r\na\r\nb\r\n \r\n\r\n  c\r\n\r\nd\r\n")
    assert read_corpus(file, texts_by).texts == texts


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus\.txt: byte 3 is not valid UTF-8"):
        read_corpus(write(tmp_path, b"abc\xff"))
    with pytest.raises(InputError, match="no text"):
        read_corpus(write(tmp_path, b" \n\n \t"))
    with pytest.raises(InputError, match="expected one of: paragraph, line, file"):
        read_corpus(write(tmp_path, b"abc"), "word")
    with pytest.raises(FileNotFoundError):
        read_corpus(tmp_path / "missing.txt")


@given(st.integers(40, 300), st.sampled_from([0.01, 0.05, 0.1, 0.5]))
def test_many_texts_are_split_whole_and_evenly(count: int, held_out: float) -> None:
    texts = tuple(f"text {n}" for n in range(count))
    split = Corpus("c", texts).split(held_out)
    if count >= 2 / held_out:
        assert sorted(split.training + split.held_out, key=texts.index) == list(texts)
        assert len(split.held_out) == pytest.approx(count * held_out, abs=1)
        places = [texts.index(text) for text in split.held_out]
        assert len({b - a for a, b in pairwise(places)}) <= 1
    assert split.training
    assert split.held_out


@given(st.lists(st.text(st.sampled_from("abc"), min_size=1, max_size=9000), min_size=1, max_size=4))
def test_few_texts_are_split_at_the_end(texts: list[str]) -> None:
    corpus = Corpus("c", tuple(texts))
    if corpus.characters < 2:
        with pytest.raises(InputError, match="too few"):
            corpus.split(0.1)
        return
    split = corpus.split(0.1)
    assert "".join(split.training) + "".join(split.held_out) == "".join(texts)
    assert sum(map(len, split.held_out)) == max(1, round(corpus.characters * 0.1))
    assert all(0 < len(text) <= 4096 for text in split.held_out)


@pytest.mark.parametrize("held_out", [0.0, -0.1, 0.6, 1.0, float("nan")])
def test_wrong_fractions_are_refused(held_out: float) -> None:
    with pytest.raises(InputError, match="held_out"):
        Corpus("c", ("ab",) * 50).split(held_out)


def test_the_digest_tells_corpora_apart() -> None:
    assert Corpus("a", ("ab", "c")).digest() == Corpus("b", ("ab", "c")).digest()
    assert Corpus("a", ("ab", "c")).digest() != Corpus("a", ("a", "bc")).digest()


def test_python_carries_enough_english() -> None:
    corpus = python_corpus()
    assert corpus.characters > 150_000
    assert len(set(corpus.texts)) == len(corpus.texts) > 500
    assert all(" " <= character <= "~" for text in corpus.texts for character in text)
    words = " ".join(corpus.texts).lower().split()
    assert sum(word in {"the", "a", "of", "is", "to", "in", "and"} for word in words) / len(words) > 0.15, "prose"
    assert not [text for text in corpus.texts if text != text.strip() or "::=" in text or ">>>" in text]
