"""``rnncore sample`` and ``rnncore inspect`` on files that write whole sequences in one call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rnncore import runtime
from rnncore.export.file import write_entries
from rnncore.runtime import Generator, Translator
from rnncore.runtime.text.translator import SOURCE_TOKENIZER_KEY, TARGET_TOKENIZER_KEY
from rnncore.text import character_vocabulary
from tests import task_models
from tests.cli.conftest import Run, runner
from tests.generation.models import generator, generator_file, translator_file


@pytest.fixture
def run() -> Run:
    return runner()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind; the translator reads and writes letters."""
    folder = tmp_path_factory.mktemp("writers")
    made = {name: folder / f"{name}.onnx" for name in ("texts", "translator", "tunes", "tagger")}
    made["texts"].write_bytes(generator_file())
    made["tunes"].write_bytes(task_models.model_file("generator"))
    made["tagger"].write_bytes(task_models.model_file("tagger"))
    made["translator"].write_bytes(translator_file("dot"))
    words = {SOURCE_TOKENIZER_KEY: "abcdef", TARGET_TOKENIZER_KEY: "wxyz"}
    write_entries(
        made["translator"], {key: character_vocabulary([letters]).to_json() for key, letters in words.items()}
    )
    return made


def test_each_kind_writes_what_its_class_writes(run: Run, files: dict[str, Path]) -> None:
    drawn = {"temperature": 1.2, "top_k": 3, "top_p": 0.9, "seed": 5}
    options = [
        "--length",
        6,
        *(part for name, value in drawn.items() for part in (f"--{name}".replace("_", "-"), value)),
    ]
    written = run("sample", files["texts"], "--prefix", "the", *options)
    assert written.stdout == "the" + generator().generate("the", max_tokens=6, **drawn) + "\n"
    written = run("sample", files["tunes"], "--condition", "reel", *options)
    assert written.stdout == Generator.load(files["tunes"]).generate("reel", 6, **drawn) + "\n"
    translator = Translator.load(files["translator"])
    best = translator.translate("fade", max_tokens=5, beam=3)
    assert best
    told = run("sample", files["translator"], "--prefix", "-", "--length", 5, "--beam", 3, "--json", stdin="fade\n")
    assert json.loads(told.stdout) == {"prefix": "fade", "written": best}
    assert run("sample", files["translator"], "--prefix", "fade", "--length", 5, "--beam", 3).stdout == best + "\n"


def test_inspect_says_what_each_opens_as(run: Run, files: dict[str, Path]) -> None:
    for name, kind in {"texts": "TextGenerator", "translator": "Translator", "tunes": "Generator"}.items():
        shown = run("inspect", files[name]).stdout
        assert f"opens as     {kind}\n" in "".join(line.rstrip() + "\n" for line in shown.splitlines())
        assert type(runtime.open(files[name])).__name__ == kind


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("translator", ("--seed", 1, "--top-k", 2), "--top-k, --seed: a translator draws nothing"),
        ("texts", ("--beam", 2), "--beam is for a translator"),
        ("texts", ("--condition", "jig"), "--condition is for a generator with conditions"),
        ("tunes", ("--condition", "waltz"), "expected one of: jig, reel, air"),
        ("tagger", (), "is a Tagger, expected a language model, a generator or a translator"),
    ],
)
def test_what_a_kind_does_not_take_is_refused(
    run: Run, files: dict[str, Path], kind: str, options: tuple[object, ...], says: str
) -> None:
    refused = run("sample", files[kind], *options)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert says in refused.stderr
