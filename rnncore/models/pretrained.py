"""Models as folders that the ecosystem knows: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from rnncore.models.cell_config import CellConfig
from rnncore.models.encoder_decoder_config import EncoderDecoderConfig
from rnncore.models.language_model_config import LanguageModelConfig
from rnncore.models.ngrams import NgramSizes
from rnncore.models.reader_config import ReaderConfig
from rnncore.runtime import Affixes
from rnncore.runtime.errors import InputError, MissingExtraError, ModelFileError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_CLASS = "model_class"
_KIND = "is"  # of a value that is a dataclass: its name
_DATA = {
    one.__name__: one
    for one in (Affixes, CellConfig, EncoderDecoderConfig, LanguageModelConfig, NgramSizes, ReaderConfig)
}
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Pretrained(nn.Module):
    """A module that remembers what it was made with, so that a folder can hold it: the base of every ready model.

    Subclasses work as well, if their arguments are JSON values, configurations of rnncore, and lists or mappings of these.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__:
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``, which is made if it is missing.

        Raises:
            InputError: an argument that the model was made with is no value for JSON.
        """
        try:
            from safetensors.torch import save_model
        except ImportError:
            raise MissingExtraError("safetensors", "train", "save_pretrained") from None
        arguments = {name: _plain(name, value) for name, value in self._made_with.items()}
        config = {_CLASS: type(self).__name__, "dtype": _dtype_of(self), "arguments": arguments}
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        (place / CONFIG_FILE).write_text(json.dumps(config, indent=2, ensure_ascii=False), "utf-8")
        save_model(self, str(place / WEIGHTS_FILE))  # which knows weights that two layers share

    @classmethod
    def from_pretrained(cls, source: str | Path, **download: Any) -> Self:
        """The model of a folder that :meth:`save_pretrained` wrote, on the CPU and in eval mode.

        Args:
            source: a folder, or, if there is none of that name, the id of a repository on the Hugging Face Hub, which
                needs the network unless it is in the cache.
            download: arguments of ``huggingface_hub.snapshot_download``, such as ``revision``, ``token``, ``cache_dir``
                and ``local_files_only``.

        Raises:
            ModelFileError: there is no such folder or repository, or it is incomplete or damaged.
            InputError: it holds a model of another class.
        """
        folder = Path(source)
        if not folder.is_dir():
            folder = _downloaded(str(source), download)
        config = _read_config(folder)
        if config[_CLASS] != cls.__name__:
            raise InputError(f"{folder} holds a {config[_CLASS]}, not a {cls.__name__}: load it by that class")
        try:
            arguments = {name: _restored(value) for name, value in config["arguments"].items()}
            model = cls(**arguments).to(_DTYPES[config["dtype"]])
        except (TypeError, KeyError, AttributeError) as error:
            raise ModelFileError(f"{folder / CONFIG_FILE} does not describe a {cls.__name__}: {error}") from error
        _load_weights(model, folder / WEIGHTS_FILE)
        return model.eval()

    @property
    def _made_with(self) -> Mapping[str, Any]:
        return self.__dict__.get("_arguments", {})


def _remembering(make: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(make)

    @functools.wraps(make)
    def init(self: Pretrained, *args: Any, **options: Any) -> None:
        if "_arguments" not in self.__dict__:  # the outermost class, whose arguments make all the others
            try:
                bound = signature.bind(self, *args, **options).arguments
            except TypeError:
                bound = {}  # what does not fit is told by the call itself
            found = dict(list(bound.items())[1:])
            rest = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
            for name in rest:
                found.update(found.pop(name, {}))
            self.__dict__["_arguments"] = found
        make(self, *args, **options)

    return init


def _plain(name: str, value: Any) -> Any:
    """``value`` as JSON has it."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if is_dataclass(value) and type(value).__name__ in _DATA:
        return {_KIND: type(value).__name__} | {f.name: _plain(name, getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping) and all(isinstance(key, str) and key != _KIND for key in value):
        return {key: _plain(name, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, one) for one in value]
    raise InputError(
        f"the model was made with {name}={value!r}, a {type(value).__name__}, which a config.json cannot hold"
    )


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_restored, value))
    if not isinstance(value, dict):
        return value
    inner = {key: _restored(one) for key, one in value.items() if key != _KIND}
    return _DATA[value[_KIND]](**inner) if _KIND in value else inner


def _dtype_of(model: nn.Module) -> str:
    first = next(model.parameters(), torch.zeros(0)).dtype
    return str(first).removeprefix("torch.")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(
            f"{folder} has no readable {CONFIG_FILE} ({error.strerror}): save_pretrained writes one"
        ) from error
    except ValueError as error:
        raise ModelFileError(f"{path} is not JSON: {error}") from error
    wanted = {_CLASS: str, "dtype": str, "arguments": dict}
    if not isinstance(config, dict) or any(not isinstance(config.get(k), t) for k, t in wanted.items()):
        raise ModelFileError(f"{path} is not a configuration of rnncore: it needs {', '.join(wanted)}")
    return config


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_model
    except ImportError:
        raise MissingExtraError("safetensors", "train", "from_pretrained") from None
    if not path.is_file():
        raise ModelFileError(f"{path.parent} has no {WEIGHTS_FILE}")
    try:
        load_model(model, str(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        lines = str(error).splitlines()
        reason = "; ".join(line.strip() for line in lines[:4])
        raise ModelFileError(f"{path} does not fit {CONFIG_FILE} beside it: {reason}") from error


def _downloaded(source: str, options: Mapping[str, Any]) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise MissingExtraError("huggingface_hub", "train", "a model that is no folder") from None
    try:
        return Path(snapshot_download(source, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE], **options))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()
        raise ModelFileError(
            f"{source!r} is no folder, and no repository that can be had: {reason[0] if reason else type(error).__name__}"
        ) from error
