"""Do something with a file of somebody unknown in a process of its own, which has an end in time and memory."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rnncore.runtime import errors
from rnncore.runtime.errors import ModelFileError, RnncoreError
from rnncore.runtime.format.limits import Limits

_CHILD = "import sys; from rnncore.runtime.isolation import serve; serve(sys.stdin.buffer, sys.stdout.buffer)"


def in_own_process(
    module: str, function: str, arguments: tuple[Any, ...], named: Mapping[str, Any], limits: Limits
) -> dict[str, Any]:
    """The fields of the dataclass that a function of a module returns, called in a new process.

    The answer comes as JSON: a process that a file took over cannot hand this one code.

    Raises ModelFileError when it takes longer, or more memory, than ``limits`` allows, or when it dies; what the function
    raises of rnncore's own errors is raised here.
    """
    question = pickle.dumps((module, function, arguments, dict(named), limits))
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD], input=question, capture_output=True, timeout=limits.verify_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelFileError(f"the file was not done after {limits.verify_s} s (limits.verify_s)") from None
    if done.returncode or not done.stdout:
        raise ModelFileError(
            f"the process that ran the file ended with {done.returncode}: it crashed, or took more memory than "
            f"limits.verify_bytes={limits.verify_bytes}"
        )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
        error, message = answer.pop("error", ""), str(answer.pop("message", ""))
    except (ValueError, AttributeError, RecursionError):
        raise ModelFileError("the process that ran the file gave no answer") from None
    if error:
        kind = getattr(errors, str(error), None)
        raise (kind if isinstance(kind, type) and issubclass(kind, ModelFileError) else ModelFileError)(message)
    return answer


def serve(questions: Any, answers: Any) -> None:
    """The child: read the question, answer it, end."""
    import importlib
    import os

    out = os.dup(answers.fileno())
    os.dup2(2, answers.fileno())  # what anybody prints goes nowhere near the answer
    module, function, arguments, named, limits = pickle.load(questions)
    _bound_memory(limits.verify_bytes)
    try:
        answer = asdict(getattr(importlib.import_module(module), function)(*arguments, **named))
    except RnncoreError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        message = f"the file takes more memory than limits.verify_bytes={limits.verify_bytes}"
        answer = {"error": "ModelFileError", "message": message}
    with open(out, "w", encoding="utf-8") as stream:
        json.dump(answer, stream)


def _bound_memory(most: int) -> None:
    try:
        import resource
    except ImportError:  # no such bound on this system
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    try:
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    except (ValueError, OSError):
        if sys.platform != "darwin":  # which names this bound and refuses to set it
            raise
