"""Hot swap: one name for "the model in use", under which another model can be put while streams are live."""

from __future__ import annotations

import threading

from rnncore.runtime.errors import InputError
from rnncore.runtime.model import Model
from rnncore.runtime.origin import logger


class ModelSlot:
    """The model that new work goes to.

    A stream belongs for its whole life to the model that opened it, so after a swap old streams finish on the old model,
    which is freed with the last of them.

    ::

        slot = ModelSlot(load("tagger-1.onnx"))
        stream = slot.model.stream()
        slot.swap(load("tagger-2.onnx"))     # loaded and checked before anything changes
        stream.push(chunk)                   # still tagger-1
    """

    __slots__ = ("_lock", "_model")

    def __init__(self, model: Model) -> None:
        self._lock = threading.Lock()
        self._model = model

    @property
    def model(self) -> Model:
        """The model in use now."""
        return self._model

    def swap(self, model: Model) -> Model:
        """Use ``model`` from now on; returns the one that was in use.

        Raises InputError, and changes nothing, if clients of the old model could not use the new one: its inputs and
        outputs have other names, dtypes or shapes.
        """
        with self._lock:
            old = self._model
            problems = [
                f"{what} of the new model are {theirs}, of the model in use {ours}"
                for what, ours, theirs in (
                    ("inputs", _shown(old.signature.inputs), _shown(model.signature.inputs)),
                    ("outputs", _shown(old.signature.outputs), _shown(model.signature.outputs)),
                )
                if ours != theirs
            ]
            if old.causal and not model.causal:
                problems.append("the new model does not stream, the model in use does")
            if problems:
                raise InputError("the models cannot be swapped: " + "; ".join(problems))
            self._model = model
        logger.info("swapped %r for %r", old, model)
        return old

    def __repr__(self) -> str:
        return f"<ModelSlot {self._model!r}>"


def _shown(ports: tuple[object, ...]) -> str:
    return ", ".join(str(port) for port in ports)
