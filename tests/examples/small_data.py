"""Tiny files in the formats of the real data sets, made up here."""

from __future__ import annotations

import gzip
import lzma
import struct
import wave
from pathlib import Path

import numpy as np


def addresses(folder: Path) -> Path:
    random = np.random.default_rng(1)
    streets, kinds = ("Main", "Oak", "Second"), ("St", "Ave", "Rd")
    rows = [
        f"<AddressString><AddressNumber>{random.integers(1, 999)}</AddressNumber> "
        f"<StreetName>{random.choice(streets)} Hill</StreetName> <StreetNamePostType>{random.choice(kinds)}"
        "</StreetNamePostType></AddressString>"
        for _ in range(20)
    ]
    path = folder / "labeled.xml"
    path.write_text(f"<AddressCollection>{''.join(rows)}</AddressCollection>")
    return path


def ratings(folder: Path) -> Path:
    rows = [
        f"{i}\t{sign * 2.5}\tA {word} film" for i in range(10) for sign, word in ((1, "good"), (-1, "bad"), (0, "long"))
    ]
    (folder / "movieReviewSnippets_GroundTruth.txt").write_text("\n".join(rows))
    return folder


def series(folder: Path, name: str, labels: tuple[str, ...], channels: int) -> Path:
    random = np.random.default_rng(2)
    for part in ("TRAIN", "TEST"):
        lines = ["#made up", "@data"]
        for i in range(4 * len(labels)):
            values = random.normal(i % len(labels), 1, (channels, 5 + i % 3))
            lines.append(":".join(",".join(f"{v:.3f}" for v in row) for row in values) + f":{labels[i % len(labels)]}")
        (folder / f"{name}_{part}.ts").write_text("\n".join(lines))
    return folder


def tunes(folder: Path) -> Path:
    (folder / "ryansMammoth").mkdir()
    for i in range(12):
        kind, metre, bar = (("Reel", "C|", "GABc d2ef"), ("jig", "6/8", "GAB cde"), ("Hornpipe", "4/4", "G>A B>c"))[
            i % 3
        ]
        tune = f'X: 1\nT: No. {i}\nR: {kind}\nM: {metre}\nL: 1/8\nK: G % sharp\n"G"{bar} | A{1 + i} |\\\n G4 ||\n\n'
        (folder / "ryansMammoth" / f"{i:02}.abc").write_text(tune)
    return folder


def recordings(folder: Path) -> Path:
    """Each letter is a tone of its own, 0.2 seconds long."""
    texts = ["ab", "ba", "aab", "Ab!", "b a", "bab", "abba", "bb", "a b", "aa", "a 2#", "10 b"]
    tones = {"a": 440.0, "b": 880.0, " ": 0.0}
    time = np.arange(0, 0.2, 1 / 8000)
    for i, text in enumerate(texts):
        wave_form = np.concatenate([np.sin(2 * np.pi * tones.get(c, 0.0) * time) for c in text.lower()])
        with wave.open(str(folder / f"p{i}.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes((9000 * wave_form).astype("<i2").tobytes())
    lines = ["; made up", *(f"p{i}: {text} (slowly)" for i, text in enumerate(texts)), "absent: not there"]
    (folder / "core-sounds-en.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


def splice_junctions(folder: Path) -> tuple[Path, list[tuple[str, str]]]:
    """An .rda as R writes it, and what is in it."""
    random = np.random.default_rng(3)
    rows = [("".join(random.choice(list("ACGT"), 60)), str(random.choice(["ei", "ie", "n"]))) for _ in range(30)]
    bits = {"A": "100", "C": "010", "G": "001", "T": "000"}
    columns = [[bits[bases[i // 3]][i % 3] for bases, _ in rows] for i in range(180)] + [[label for _, label in rows]]
    names: list[str] = []

    def text(value: str) -> bytes:
        return struct.pack(">ii", 0x40009, len(value)) + value.encode()

    def symbol(name: str) -> bytes:
        if name in names:
            return struct.pack(">i", (names.index(name) + 1) << 8 | 255)
        names.append(name)
        return struct.pack(">i", 1) + text(name)

    def strings(values: list[str]) -> bytes:
        return struct.pack(">ii", 16, len(values)) + b"".join(map(text, values))

    def attributes(pairs: list[tuple[str, list[str]]]) -> bytes:
        written = b"".join(struct.pack(">i", 0x402) + symbol(name) + strings(values) for name, values in pairs)
        return written + struct.pack(">i", 254)

    def factor(values: list[str]) -> bytes:
        levels = sorted(set(values))
        numbers = struct.pack(f">ii{len(values)}i", 0x30D, len(values), *(1 + levels.index(v) for v in values))
        return numbers + attributes([("levels", levels), ("class", ["factor"])])

    data = b"RDX2\nX\n" + struct.pack(">iii", 2, 0x020A01, 0x020300)
    data += struct.pack(">i", 0x402) + symbol("DNA") + struct.pack(">ii", 0x313, len(columns))
    data += b"".join(map(factor, columns))
    data += attributes([("names", [f"V{i}" for i in range(len(columns))]), ("class", ["data.frame"])])
    path = folder / "DNA.rda"
    path.write_bytes(lzma.compress(data + struct.pack(">i", 254)))
    return path, rows


def debian_titles(folder: Path) -> Path:
    """Packages and the translations of their titles, as the archive lists them; what is not translated is left out."""
    subjects = (("cats", "Katzen"), ("dogs", "Hunde"), ("mice", "Mäuse"), ("birds", "Vögel"), ("fish", "Fische"))
    kinds = (("library for {}", "Bibliothek für {}"), ("games with {}", "Spiele mit {}"))
    packages, english, german = [], [], []
    for i, ((a, b), (title, own)) in enumerate((subject, kind) for subject in subjects for kind in kinds):
        name, source = f"lib{a}{i}", f"\nSource: {a} (1.0)" if i % 2 else ""
        packages.append(f"Package: {name}{source}\nVersion: 1.0\nSection: games\nDescription-md5: {i}")
        english.append(f"Package: {name}\nDescription-md5: {i}\nDescription-en: {title.format(a)}\n More: words.")
        german.append(f"Package: {name}\nDescription-md5: {i}\nDescription-de: {own.format(b)}\n Mehr.")
    english.append("Package: new\nDescription-md5: 99\nDescription-en: not translated")
    for list_name, stanzas in (("Packages", packages), ("Translation-en", english), ("Translation-de", german)):
        (folder / list_name).write_text("\n\n".join(stanzas) + "\n", "utf-8")
    return folder
