"""Every error that rnncore raises on purpose, in one tree.

::

    RnncoreError
    ├── InputError            a value handed in is wrong: rank, width, dtype, lengths, an empty list  (also ValueError)
    │   └── UnknownTokenError     a character or token outside the model's vocabulary
    ├── StateError            a recurrent state is wrong: of another model, of another batch, misused  (also ValueError)
    │   ├── StreamBusyError       one stream used by two callers at the same time
    │   ├── StreamEvictedError    a pool gave the stream's state to its on_evict callback: restore it from there
    │   └── SnapshotError         a saved state is foreign, cut short, altered, newer, or of another model
    ├── PoolError             a pool did not do what was asked; the stream's state is as it was
    │   ├── Overloaded            more pushes pending, or more streams open, than the pool may hold
    │   ├── DeadlineExceeded      a push waited longer than its timeout  (also TimeoutError)
    │   └── PoolClosedError       the pool is closed, or belongs to the process that this one was forked from
    ├── NotStreamableError    a stream was asked of a model that is not causal  (also ValueError)
    ├── ModelFileError        a file cannot be used  (also ValueError)
    │   ├── NotOnnxError          no ONNX model: another kind of file, empty or truncated
    │   ├── ForeignModelError     an ONNX model that rnncore did not write, or that is not as ``states=`` says
    │   ├── FormatVersionError    written by a newer rnncore than this one
    │   ├── TamperedModelError    weights or graph do not match the fingerprint in the file
    │   └── SignatureError        a signature was asked for, and there is none, or none by that key
    ├── ExportError           a PyTorch module cannot be exported as asked
    │   └── VerificationError     the exported file and the PyTorch module disagree; no file is left behind
    ├── TrainingError         training cannot go on: the loss is not finite, or a checkpoint does not fit
    └── MissingExtraError     an optional dependency is not installed; says which extra to install  (also ImportError)

Catch :class:`RnncoreError` for all of them.  Errors of bad arguments are ``ValueError`` as well, so code that knows
nothing of rnncore behaves as its author expects.
"""

from __future__ import annotations

from collections.abc import Sequence


class RnncoreError(Exception):
    """Base of every error that rnncore raises on purpose."""


class InputError(RnncoreError, ValueError):
    """A value handed in has the wrong rank, width, dtype, range or number."""


class UnknownTokenError(InputError):
    """A character or token is not in the model's vocabulary."""


class StateError(RnncoreError, ValueError):
    """A recurrent state does not fit: another model, another batch size, or misuse of a stream."""


class StreamBusyError(StateError):
    """One stream was used by two callers at the same time."""


class StreamEvictedError(StateError):
    """A pool gave the state of an idle stream to its ``on_evict`` callback."""


class SnapshotError(StateError):
    """A saved state cannot be restored: foreign, cut short, altered, of a newer format, or of another model."""


class PoolError(RnncoreError):
    """A pool did not do what was asked of it; the stream's state is as it was."""


class Overloaded(PoolError):
    """More pushes are pending, or more streams open, than the pool may hold."""


class DeadlineExceeded(PoolError, TimeoutError):
    """A push waited longer than its timeout and was not applied."""


class PoolClosedError(PoolError):
    """The pool is closed, or belongs to the process that this one was forked from."""


class NotStreamableError(RnncoreError, ValueError):
    """A stream was asked of a model whose answer at time t depends on inputs after t."""


class ModelFileError(RnncoreError, ValueError):
    """A model file cannot be used."""


class NotOnnxError(ModelFileError):
    """The file is no ONNX model, is empty, or is truncated."""


class ForeignModelError(ModelFileError):
    """The file is an ONNX model that rnncore did not write; or its graph is not as the caller's ``states=`` says."""


class FormatVersionError(ModelFileError):
    """The file was written by a newer rnncore."""


class TamperedModelError(ModelFileError):
    """The weights or the graph do not match the fingerprint stored in the file."""


class SignatureError(ModelFileError):
    """A file is not signed, or not as it is and by the key that was asked for."""


class ExportError(RnncoreError):
    """A PyTorch module cannot be exported as asked."""


class VerificationError(ExportError):
    """The exported file and the PyTorch module gave different answers."""


class TrainingError(RnncoreError):
    """Training cannot go on: the loss is not finite, or a checkpoint cannot be read or does not fit."""


class MissingExtraError(RnncoreError, ImportError):
    """An optional dependency is missing."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': pip install 'rnncore[{extra}]'")


def raise_all(problems: Sequence[str], error: type[RnncoreError] = InputError, title: str = "") -> None:
    """Raise one ``error`` that lists every problem, or return if there is none."""
    if not problems:
        return
    if len(problems) == 1 and not title:
        raise error(problems[0])
    head = title or f"{len(problems)} problems"
    raise error(head + ":\n" + "\n".join(f"  - {problem}" for problem in problems))
