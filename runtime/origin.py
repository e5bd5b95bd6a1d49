"""Where a model came from: enough to open it again in another process."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any, Literal

from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import InputError, raise_all
from rnncore.runtime.foreign.description import Foreign
from rnncore.runtime.format.limits import DEFAULT_LIMITS, Limits
from rnncore.runtime.session.providers import CPU, Provider, Providers, read_providers
from rnncore.runtime.session.threads import usable_processors

logger = logging.getLogger("rnncore")
logger.addHandler(logging.NullHandler())  # quiet unless the application configures logging

Threads = int | Literal["auto", "shared"] | None


@dataclass(frozen=True)
class Options:
    """How a model is run.  ``threads`` is a number, or None for the pool that models share.

    providers: what computes it, in the order in which parts of the graph are offered.
    foreign: how to read a file that rnncore did not write.  limits: what the file may ask for.
    public_key, signature: who must have signed it, None if that is not asked; see :mod:`rnncore.runtime.signing`.
    """

    threads: int | None = 1
    arena: bool = True
    max_steps: int | None = None
    max_batch_steps: int | None = None
    providers: tuple[Provider, ...] = ((CPU, {}),)
    foreign: Foreign | None = None
    limits: Limits = DEFAULT_LIMITS
    public_key: bytes | None = None
    signature: bytes | None = None


@dataclass(frozen=True)
class Origin:
    """A path, made absolute, or the bytes of a file, and the options it was loaded with."""

    source: str | bytes
    options: Options


def read_options(
    threads: Threads,
    arena: bool,
    max_steps: int | None,
    max_batch_steps: int | None = None,
    providers: Providers | None = None,
) -> Options:
    """The checked options of :func:`rnncore.runtime.load`; raises InputError that lists every problem."""
    problems = []
    if threads is None or threads == "auto":
        threads = usable_processors()
        logger.info("threads='auto' is %d here", threads)
    if threads != "shared":
        problems += count_problems("threads", threads, instead=", 'auto' or 'shared'")
    for name, value in (("max_steps", max_steps), ("max_batch_steps", max_batch_steps)):
        if value is not None:
            problems += count_problems(name, value, instead=", or None for no limit")
    raise_all(problems, InputError)
    if max_batch_steps is not None and (max_steps or 0) > max_batch_steps:
        raise InputError(
            f"max_steps is {max_steps}, more than max_batch_steps={max_batch_steps}: one sequence is a batch"
        )
    longest = max_batch_steps if max_steps is None else max_steps
    own_threads = threads if isinstance(threads, int) else None
    return Options(own_threads, arena, longest, max_batch_steps, read_providers(providers))


def readable(source: Any) -> str | os.PathLike[str] | bytes:
    """What a caller names a model file by: its path, or its bytes; InputError for anything else."""
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike | bytes):
        return source
    hint = ": hand in what it reads, file.read()" if hasattr(source, "read") else ""
    raise InputError(f"source is a {type(source).__name__}, expected the path of a file, or its bytes{hint}")


def origin_of(source: str | os.PathLike[str] | bytes, options: Options) -> Origin:
    """The origin of what was handed to ``load``; a path stays right when the working directory changes."""
    return Origin(source if isinstance(source, bytes) else os.path.abspath(source), options)
