"""What the measured applications count with, on inputs where it can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.applications import (
    activity,
    addresses,
    exons,
    glosses,
    prompt_language,
    pronunciation,
    sentences,
    sentiment,
    speech,
    titles,
    varied_speech,
)
from benchmarks.applications.common import Split
from rnncore.runtime import BeamDecoder, BeamOptions, LogMel
from tests.examples import small_data
from tests.tolerances import fixed

BASES = st.text("ACGTN", min_size=1, max_size=40)


@given(bases=BASES, seed=st.integers(0, 9))
def test_the_other_strand_of_the_other_strand(bases: str, seed: int) -> None:
    strand = exons.Strand(bases, np.random.default_rng(seed).random(len(bases)) < 0.5)
    other = strand.reversed()
    pairs = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
    assert other.bases == "".join(pairs[base] for base in reversed(bases))
    again = other.reversed()
    assert again.bases == bases and np.array_equal(again.exon, strand.exon)


@given(length=st.integers(1, 1300))
def test_steps_tell_of_every_base_on_both_strands(length: int) -> None:
    random = np.random.default_rng(length)
    strand = exons.Strand("".join(random.choice(list("ACGTN"), length)), random.random(length) < 0.3)
    told = exons.features(strand.bases)
    assert np.array_equal(told, exons.features(strand.bases.lower()))
    for offset in exons.OFFSETS:
        assert len(exons.features(strand.bases, offset)) == len(exons.labels(strand.exon, offset))
    found = exons.pieces(strand)
    assert all(len(steps) == len(wanted) <= exons.PIECE for steps, wanted in found)
    assert sum(len(steps) for steps, _ in found) == sum(len(exons.features(strand.bases, o)) for o in exons.OFFSETS)

    class Told:
        def log_probs(self, steps: np.ndarray) -> np.ndarray:
            return np.log(np.repeat([[0.75, 0.25]], len(steps), 0))

    said = exons.probabilities(Told(), strand.bases)  # type: ignore[arg-type]
    assert said.shape == (length,) and np.abs(said - 0.25).max() < fixed("float64")


@given(bases=st.text("ACGTN", min_size=3, max_size=30), around=st.integers(1, 9))
def test_codons_near_a_base(bases: str, around: int) -> None:
    found = exons.codons(bases, around)
    codons = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
    for place in range(len(bases)):
        near = [bases[i : i + 3] for i in range(max(0, place - around), min(len(bases), place + around))]
        assert found[place].tolist() == [near.count(codon) for codon in codons]


@given(words=st.lists(st.text("aB1 29ß", min_size=1, max_size=6), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_variants_of_addresses_keep_their_tags(words: list[str], seed: int) -> None:
    tags = [str(i) for i in range(len(words))]
    cased, renumbered = addresses.varied([(words, tags)], seed)
    assert cased[0] in ([word.upper() for word in words], [word.lower() for word in words]) and cased[1] == tags
    assert renumbered[1] == tags and [len(word) for word in renumbered[0]] == [len(word) for word in words]
    plain = [[("0" if letter.isdigit() else letter) for letter in word] for word in words]
    assert [[("0" if letter.isdigit() else letter) for letter in word] for word in renumbered[0]] == plain


def test_edits_are_counted_to_the_nearest_pronunciation() -> None:
    words = [("a", [["AH"], ["EY"]]), ("either", [["IY", "DH", "ER"], ["AY", "DH", "ER"]])]
    found = [["EY"], ["AY", "DH", "AH"]]
    assert abs(pronunciation.phoneme_error(found, words) - 1 / 4) < fixed("float64")
    assert pronunciation.word_error(found, words) == 0.5


def test_a_letter_says_what_stands_most_often_at_its_place() -> None:
    train = [("ab", [["AE", "B"]]), ("ba", [["B", "AH"]]), ("at", [["AE", "T"]]), ("box", [["B", "AA", "K", "S"]])]
    assert pronunciation.letter_by_letter(Split(train, [], [("tabx", [[]])])) == [["T", "AE", "B"]]


def test_polarity_asks_only_about_what_people_rated_clearly() -> None:
    rows = [("good", 2.0), ("so so", 0.3), ("bad", -1.0), ("awful", -3.0)]
    assert sentiment.polarity(np.array([0.1, -9.0, -0.1, 0.2]), rows) == 2 / 3


def test_exons_are_read_as_their_files_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    (tmp_path / "genomes").mkdir()
    (tmp_path / "refseq").mkdir()
    (tmp_path / "genomes" / "hg38.fa").write_text(">chr16 1 12 +\nACGTac\nNNTTGG\n")
    rows = [("exon", 2, 4), ("CDS", 3, 4), ("exon", 12, 12)]  # the first base is 1, and the last one belongs to it
    lines = [f"chr16\trefGene\t{kind}\t{first}\t{last}\t0\t-\t.\tgene_id x" for kind, first, last in rows]
    (tmp_path / "refseq" / "refseq.hg38.gtf").write_text("\n".join(lines) + "\n")
    bases, found = datasets.exons(tmp_path)
    assert bases == "ACGTacNNTTGG"
    assert [bases[first:last] for first, last in found] == ["CGT", "G"]
    monkeypatch.setattr(datasets, "exons", lambda: (bases, found))
    monkeypatch.setattr(exons, "BLOCK", 2)
    parts = exons.data()
    assert parts.sizes == (4, 1, 1)
    assert parts.test[0].bases == "AC" and parts.valid[0].bases == "NN"
    assert "".join(one.bases for one in parts.train) == "ACGTTTGG"
    assert np.concatenate([one.exon for one in parts.train]).tolist() == [0, 1, 1, 1, 0, 0, 0, 1]


def test_phrases_teach_not_without_saying_not_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    (tmp_path / "vader_sentiment_lexicon.txt").write_text(
        "bad\t-2.5\t0.6\t[]\n:)\t2\t1\t[]\nGood\t1.9\t0.9\t[]\nfine\t0.8\t1\t[]\n"
    )
    words = datasets.rated_words(tmp_path)
    assert words == [("bad", -2.5), ("Good", 1.9), ("fine", 0.8)]
    monkeypatch.setattr(datasets, "rated_words", lambda: words)
    found = sentiment.phrases(Split([("a film", 0.0)], [("fine", 1.0)], []))
    assert [text for text, _ in found] == ["bad", "good", "this is not good"], "nothing of the set itself"
    assert [rating for _, rating in found] == [-2.5, 1.9, pytest.approx(-0.74 * 1.9)]


def test_a_frame_is_some_samples_of_every_channel() -> None:
    row = np.arange(14).reshape(7, 2)
    assert activity.framed(row, 3).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert activity.framed(row, 1) is not None and np.array_equal(activity.framed(row, 1), row)


def test_titles_of_one_source_stand_in_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.titles(small_data.debian_titles(tmp_path))
    many = [(f"{english} {i}", german, f"{source}{i}") for i in range(10) for english, german, source in rows]
    monkeypatch.setattr(datasets, "titles", lambda: many)
    parts = titles.data()
    sources = [{source for english, _, source in many for pair in part if pair[0] == english} for part in parts]
    assert all(sources) and sum(map(len, sources)) == len(set.union(*sources))
    assert sum(parts.sizes) == len(many)


def test_a_dictionary_is_learnt_from_pairs() -> None:
    pairs = [("red house", "rotes Haus"), ("a house", "ein Haus"), ("a red ball", "ein rotes Bild"), ("a", "ein")]
    learnt = glosses.learnt_dictionary(pairs, rounds=20)
    assert {word: learnt[word] for word in ("red", "house", "a")} == {"red": "rotes", "house": "Haus", "a": "ein"}
    assert glosses.word_by_word("A red KDE-house, red", learnt) == "ein rotes KDE-house, rotes"


def test_sections_that_are_found_are_not_learnt_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.descriptions(small_data.debian_titles(tmp_path))
    assert ("library for cats", "More: words.", "games") in rows
    monkeypatch.setattr(datasets, "descriptions", lambda: [*rows, ("a", "b", "video"), ("c", "d", "perl")])
    parts = sentences.data()
    assert {row[2] for row in parts.test} == {"games"}
    assert (parts.valid, parts.train) == ([("a", "b", "video")], [("c", "d", "perl")])


def test_what_words_mean_is_where_an_embedder_of_titles_begins() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: scripts/ecosystem installs it")
    words = [f"word{'abcdefghijklmnop'[i % 16]}{'abcdefghijklmnop'[i // 16]}" for i in range(160)]
    random = np.random.default_rng(0)
    rows = [(" ".join(random.choice(words, 4)), " ".join(random.choice(words, 12)), "games") for _ in range(200)]
    parts = sentences.Parts(rows, rows[:20], [("unheard of", "words", "math"), *rows[:20]])
    model, vocabulary = sentences.new_model(parts)
    analysis = sentences.Analysis.of(parts, 96)
    ids = [vocabulary.token_id(word) for word in words]
    places = [analysis.words.vocabulary_[word] for word in words]
    wanted = analysis.dimensions.components_[:, places].T * analysis.words.idf_[places, None]
    embedding = model.reader.embedding
    assert embedding is not None
    found = embedding.weight.detach().numpy()[ids]
    assert np.abs(np.corrcoef(found.ravel(), wanted.ravel())[0, 1] - 1) < fixed("float32")
    vectors = sentences.baselines(parts)
    assert {len(one) for one in vectors.values()} == {21} and len(vectors) == 4


def test_the_nearest_other_vector() -> None:
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert sentences.nearest_alike(vectors, ["x", "x", "y", "x"]) == 0.5
    assert abs(sentences.chance(["x", "x", "y", "x"]) - 10 / 16) < fixed("float64")


def test_recordings_differ_each_time_and_keep_their_texts() -> None:
    random = np.random.default_rng(0)
    waves = [random.normal(0.0, 0.1, length).astype(np.float32) for length in (8000, 12000)]
    mel = LogMel(8000, stacked=3)
    varied = varied_speech.Varied(list(zip(waves, "ab", strict=True)), mel)
    assert len(varied) == 2
    for place, wave in enumerate(waves):
        found = [varied[place] for _ in range(8)]
        assert {text for _, text in found} == {"ab"[place]}
        assert all(rows.shape[1] == mel.features and np.isfinite(rows).all() for rows, _ in found)
        assert all(0.85 < len(rows) / len(mel(wave)) < 1.2 for rows, _ in found)
        assert len({rows.tobytes() for rows, _ in found}) == 8
    plain = varied_speech.stacked(LogMel(8000)(waves[0]), 3)
    assert np.array_equal(plain, mel(waves[0])), "the rows that are tested are stacked alike"


def test_a_faster_wave_is_shorter_and_higher() -> None:
    wave = np.sin(2 * np.pi * 100 * np.arange(8000) / 8000)
    found = varied_speech.faster(wave, 1.25)
    assert len(found) == 6400
    assert abs(np.abs(np.fft.rfft(found)).argmax() * 8000 / 6400 - 125) < 2


def test_prompts_that_are_tested_were_never_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    second = np.zeros(8000, np.float32)
    spoken = [(np.tile(second, 1 + i % 8), 8000, f"text {'abcdefghij'[i % 10]}{'xyz'[i % 3]}") for i in range(60)]
    monkeypatch.setattr(datasets, "recordings", lambda: [*spoken, (second, 16000, "another rate")])
    parts = speech.data()
    texts = [{text for _, text in part} for part in parts]
    assert sum(map(len, texts)) == len(set.union(*texts)) and "another rate" not in set.union(*texts)
    assert sum(parts.sizes[1:]) > 0
    assert all(len(wave) <= 6 * 8000 for part in parts[1:] for wave, _ in part)


def test_letters_wrong_are_counted_over_all_texts() -> None:
    wave = np.zeros(3, np.float32)
    assert speech.letter_error(["ab", ""], [(wave, "abc"), (wave, "d")]) == 2 / 4


def test_a_language_model_of_prompts_likes_prompts() -> None:
    prompts = ["ab ab", "ab ab ab", "ab b ab", "b ab ab"] * 20
    model = prompt_language.language_model("ab ", prompts, ["ab ab b"], ["a b"], epochs=1)
    assert model.score("ab ab", eos=True) > model.score("aabba", eos=True)
    best = BeamOptions(4, model, weight=1.0)
    frames = np.log(np.full((5, 4), 0.25))  # nothing is heard
    with_model, without = BeamDecoder(("a", "b", " "), best), BeamDecoder(("a", "b", " "), 4)
    with_model.push(frames)
    without.push(frames)
    assert model.score(with_model.text, eos=True) >= model.score(without.text, eos=True)
