"""The examples of tasks, from data to file, on tiny files of the same formats."""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path

import pytest

from tests.examples import small_data
from tests.examples.conftest import Run
from tests.tolerances import fixed

pytestmark = pytest.mark.slow


@pytest.fixture
def example(main: Run, tmp_path: Path) -> Run:
    """Runs an example on ``data``, and returns what it prints."""

    def run(name: str, data: Path, *arguments: object) -> str:
        out = tmp_path / "new" / "model.onnx"
        printed = main(name, "--data", data, "--out", out, *arguments)
        assert out.exists()
        return printed

    return run


def both_sides(printed: str) -> list[str]:
    """What follows "PyTorch:" and "the file:"."""
    return re.findall(r"(?m)^(?:PyTorch|the file)[^:]*: ([\d.]+)", printed)


def test_addresses(example: Run, tmp_path: Path) -> None:
    printed = example("tag_addresses", small_data.addresses(tmp_path), "--epochs", 3)
    accuracy, again = both_sides(printed)
    assert accuracy == again
    assert float(accuracy) > 50
    assert "Hill" in printed.splitlines()[-1]


def test_sentiment(example: Run, tmp_path: Path) -> None:
    accuracy, again = both_sides(example("classify_sentiment", small_data.ratings(tmp_path), "--epochs", 9))
    assert accuracy == again == "100.0"


def test_ratings(example: Run, tmp_path: Path) -> None:
    printed = example("rate_sentences", small_data.ratings(tmp_path), "--epochs", 9)
    off, again = re.findall(r"off by ([\d.]+)", printed)
    assert off == again
    assert float(off) < 1.2  # the ratings are 2.5, -2.5 and 0: always 0 is off by 1.7
    assert len(re.findall(r"\w+ \([+-][\d.]+\)", printed.splitlines()[-1])) == 9


def test_dna(example: Run, tmp_path: Path) -> None:
    path, rows = small_data.splice_junctions(tmp_path)
    accuracy, again = both_sides(example("classify_dna", path, "--epochs", 1))
    assert accuracy == again
    assert importlib.import_module("datasets").splice_junctions(path) == rows


def test_activity(example: Run, tmp_path: Path) -> None:
    data = small_data.series(tmp_path, "BasicMotions", ("Resting", "Walking"), 6)
    printed = example("recognise_activity", data, "--epochs", 3)
    accuracy, again = both_sides(printed)
    assert accuracy == again
    assert "after 2 s" in printed


def test_speakers(example: Run, tmp_path: Path) -> None:
    data = small_data.series(tmp_path, "JapaneseVowels", tuple("123456789"), 12)
    printed = example("embed_speakers", data)
    assert "the same speaker from a similarity of" in printed
    assert "of 12 recordings of 3 new speakers" in printed


def test_music(example: Run, tmp_path: Path) -> None:
    printed = example("generate_music", small_data.tunes(tmp_path), "--epochs", 1, "--samples", 2)
    bits, again = both_sides(printed)
    assert float(bits) == pytest.approx(float(again), abs=fixed("printed with 4 digits"))
    tunes = importlib.import_module("datasets").tunes(tmp_path)
    assert ("M:6/8\nL:1/8\nK:G % sharp\nGAB cde | A2 |\nG4 ||", "jig") in tunes


def test_words_are_pronounced_by_the_file_as_by_pytorch(example: Run, tmp_path: Path) -> None:
    words = ["".join(letters) for letters in itertools.product("abe", "st", "io")] + ["sat", "toast", "abbot", "biases"]
    lines = [f"{word} {' '.join(letter.upper() + '1' * (letter in 'aeio') for letter in word)}" for word in words]
    data = tmp_path / "dictionary"
    data.write_text("\n".join(["# letters are phonemes here", *lines, "it(2) I T"]), "utf-8")
    printed = example("spell_words", data, "--epochs", 1)
    assert "3 of 3 answers are PyTorch's" in printed
    assert printed.count("phoneme error rate") == 3


def test_titles(example: Run, tmp_path: Path) -> None:
    data = small_data.debian_titles(tmp_path)
    printed = example("translate_titles", data, "--epochs", 1, "--hidden", 16)
    same, asked = re.findall(r"(\d+) of (\d+) answers are PyTorch's", printed)[0]
    assert same == asked != "0"
    rows = importlib.import_module("datasets").titles(data)
    assert rows[1] == ("games with cats", "Spiele mit Katzen", "cats")
    assert len(rows) == 10


def test_speech(example: Run, tmp_path: Path) -> None:
    data = small_data.recordings(tmp_path)
    printed = example("recognise_speech", data, "--epochs", 1, "--hidden", 16)
    assert printed.count("letters wrong") == 3
    assert "after 0.4 s: " in printed
    assert "in the end: " in printed
    texts = {text for _, _, text in importlib.import_module("datasets").recordings(data)}
    spoken = {"ab", "ba", "aab", "b a", "bab", "abba", "bb", "a b", "aa", "a two pound"}
    assert texts == spoken, "digits are written as they are said, larger numbers are left out"
