"""Ready models as folders of config.json and model.safetensors, from and to the ecosystem."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file, save_file
from torch import nn

from rnncore import (
    Cell,
    CellConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GRUCell,
    LanguageModel,
    LanguageModelConfig,
    runtime,
)
from rnncore.models import Classifier, Embedder, Generator, Rater, ReaderConfig, Recogniser, Tagger
from rnncore.models.pretrained import Pretrained
from rnncore.runtime.errors import InputError, ModelFileError
from tests.strategies import randomize


class Leaky(Cell):
    """Somebody's own: one state, with an option."""

    def __init__(self, input_size: int, size: int, decay: float = 0.9) -> None:
        super().__init__(input_size, size, {"s": size})
        self.linear, self.decay = nn.Linear(input_size, size), decay

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x))

    def step(self, z: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = self.decay * s + z
        return s, s


CELLS = (CellConfig.named("lstm", 5), CellConfig("gru", 4, {"reset": "before"}))
IDS = ReaderConfig(CELLS, vocabulary_size=11, embedding_size=3, bidirectional=True)
FLOATS = ReaderConfig(CELLS, features=3)
ONE_WAY = ReaderConfig(CELLS, vocabulary_size=11, dropout=0.1)
MODELS: dict[str, Callable[[], Pretrained]] = {
    "classifier": lambda: Classifier(IDS, ["a", "b", "ü"], pooling="attention"),
    "tagger": lambda: Tagger(IDS, ("B-x", "I-x", "O"), crf=True, affixes=runtime.Affixes("abcé", suffix=2)),
    "rater": lambda: Rater(IDS, 1, 5.5),
    "recogniser": lambda: Recogniser(FLOATS, ["x", "y"]),
    "generator": lambda: Generator(ONE_WAY, ["sad"], condition_size=2, eos_id=3),
    "embedder": lambda: Embedder(FLOATS, size=4, pooling="statistics", loss="triplet"),
    "language model, tied": lambda: LanguageModel(LanguageModelConfig(11, 4, CELLS, tied=True)),
    "language model, adaptive": lambda: LanguageModel(LanguageModelConfig(11, 4, CELLS, cutoffs=(4, 8))),
    "own cell": lambda: Classifier(ReaderConfig((CellConfig.of(Leaky, 5, decay=0.5),), features=3), ["a", "b"]),
    "translator": lambda: EncoderDecoder(EncoderDecoderConfig(7, 8, CELLS, CELLS, attention="additive")),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_folder_gives_the_same_model_back(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    made = randomize(MODELS[name]().to(dtype), 3)
    made.save_pretrained(tmp_path / "new" / "folder")
    found = type(made).from_pretrained(tmp_path / "new" / "folder")
    assert repr(found) == repr(made) and not found.training
    before, after = made.state_dict(), found.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert value.dtype == after[key].dtype and torch.equal(value, after[key])
    if name == "language model, tied":
        assert found.head.weight is found.embedding.weight
    for copied in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        copied.save_pretrained(tmp_path / "again")
        assert (tmp_path / "again" / "config.json").read_bytes() == (tmp_path / "new/folder/config.json").read_bytes()


class Own(Classifier):
    """As users write them."""

    def __init__(self, *, width: int = 3, **others: Any) -> None:
        super().__init__(ReaderConfig((CellConfig.named("gru", width),), vocabulary_size=5), ["no", "yes"], **others)


def test_subclasses_remember_their_own_arguments(tmp_path: Path) -> None:
    Own(width=6, pooling="max").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["arguments"] == {"width": 6, "pooling": "max"}
    assert Own.from_pretrained(tmp_path).pooling.kind == "max"


def test_what_json_cannot_hold_is_refused_by_its_name(tmp_path: Path) -> None:
    class Holds(Pretrained):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

    with pytest.raises(InputError, match=r"made with layer=Linear.*which a config.json cannot hold"):
        Holds(nn.Linear(2, 2)).save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def damage(kind: str, folder: Path) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    values = json.loads(config.read_text())
    if kind == "no config":
        config.unlink()
    elif kind == "no json":
        config.write_text("{")
    elif kind == "foreign":
        config.write_text('{"model_type": "bert"}')
    elif kind == "unknown argument":
        config.write_text(json.dumps({**values, "arguments": {**values["arguments"], "depth": 3}}))
    elif kind == "unknown type":
        values["arguments"]["config"]["is"] = "Path"
        config.write_text(json.dumps(values))
    elif kind == "no weights":
        weights.unlink()
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif kind == "other sizes":
        save_file({name: torch.zeros(1) for name in load_file(weights)}, weights)
    elif kind == "missing weight":
        save_file(dict(list(load_file(weights).items())[1:]), weights)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("no config", "has no readable config.json"),
        ("no json", "is not JSON"),
        ("foreign", "is not a configuration of rnncore"),
        ("unknown argument", "does not describe a Classifier: .*depth"),
        ("unknown type", "does not describe a Classifier: 'Path'"),
        ("no weights", "has no model.safetensors"),
        ("cut", "does not fit config.json beside it"),
        ("other sizes", "does not fit config.json beside it"),
        ("missing weight", "does not fit config.json beside it: .*Missing key"),
    ],
)
def test_damaged_folders_are_told(kind: str, message: str, tmp_path: Path) -> None:
    MODELS["classifier"]().save_pretrained(tmp_path)
    damage(kind, tmp_path)
    with pytest.raises(ModelFileError, match=message) as caught:
        Classifier.from_pretrained(tmp_path)
    assert len(str(caught.value).splitlines()) <= 12


def test_a_folder_of_another_class_is_told(tmp_path: Path) -> None:
    MODELS["rater"]().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds a Rater, not a Classifier"):
        Classifier.from_pretrained(tmp_path)


def test_repositories_in_the_cache_of_the_hub_are_found(tmp_path: Path) -> None:
    made = MODELS["classifier"]()
    snapshot = tmp_path / "models--someone--mood" / "snapshots" / ("0" * 40)
    made.save_pretrained(snapshot)
    refs = tmp_path / "models--someone--mood" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    found = Classifier.from_pretrained("someone/mood", cache_dir=tmp_path, local_files_only=True)
    assert torch.equal(found.head.weight, made.head.weight)
    shutil.rmtree(tmp_path / "models--someone--mood")
    for name in ("someone/mood", "a b//c"):
        with pytest.raises(ModelFileError, match="is no folder, and no repository that can be had"):
            Classifier.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)


class OnHub(PyTorchModelHubMixin, LanguageModel):  # type: ignore[misc]
    """A ready model that the Hub's own mixin publishes, in the mixin's layout."""

    def __init__(self, vocabulary_size: int, embedding_size: int) -> None:
        super().__init__(LanguageModelConfig(vocabulary_size, embedding_size, CELLS, tied=True))


def test_the_mixin_of_the_hub_and_ours_read_the_same_weights(tmp_path: Path) -> None:
    made = randomize(OnHub(11, embedding_size=4), 3)
    made.save_pretrained(tmp_path / "hub")
    back = OnHub.from_pretrained(tmp_path / "hub")
    assert torch.equal(back.embedding.weight, made.embedding.weight)
    plain = LanguageModel(made.config)
    plain.load_state_dict(made.state_dict())
    plain.save_pretrained(tmp_path / "ours")
    ours, hub = (load_file(tmp_path / place / "model.safetensors") for place in ("ours", "hub"))
    assert ours.keys() == hub.keys() and all(torch.equal(ours[key], hub[key]) for key in ours)


def test_an_own_cell_is_looked_up_and_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CellConfig.of(Leaky, 5, decay=0.5)
    assert config == CellConfig(f"{__name__}:Leaky", 5, {"decay": 0.5})
    assert isinstance(config.build(3), Leaky) and CellConfig.of(GRUCell, 4) == CellConfig("gru", 4)
    assert isinstance(CellConfig("__main__:Leaky", 5).build(3), Leaky)  # of a script that is imported now
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="import the module that defines it"):
        CellConfig("trap:Cell", 5).build(3)
    with pytest.raises(InputError, match="does not take these options"):
        CellConfig.of(Leaky, 5, growth=1).build(3)

    class Inside(Leaky):
        pass

    for cell, says in (
        (Inside, "define it in a module"),
        (nn.GRUCell, "expected a subclass"),
        (Leaky(3, 4), "expected a"),
    ):
        with pytest.raises(InputError, match=says):
            CellConfig.of(cell, 5)  # type: ignore[arg-type]
    del Inside
    gc.collect()
