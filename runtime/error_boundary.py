"""The border to the outside: only errors of rnncore leave public functions, in a few lines."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from rnncore.runtime.errors import RnncoreError
from rnncore.runtime.interrupts import from_signal_handler

P = ParamSpec("P")
R = TypeVar("R")
MOST_LINES = 12
_handled: ContextVar[BaseException | None] = ContextVar("rnncore_handled", default=None)
"""What the caller was handling when it called; it is the context of every exception from then on."""


def only_own_errors(
    error: type[RnncoreError], doing: str, line_of: Callable[[BaseException], str] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make every exception that leaves a function one of rnncore's, with a message of at most 12 lines.

    Calls that do not fit the function's parameters stay TypeErrors.  What a signal handler of the caller raised passes, even
    where it was caught on the way; so does what is no ``Exception``, such as KeyboardInterrupt.

    Args:
        error: what others turn into, such as ExportError.
        doing: what failed then, such as "the export".
        line_of: says which line of the user's code an exception passed, empty if none.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            token = _handled.set(sys.exception())
            try:
                return function(*args, **kwargs)
            except Exception as failure:
                pass_on_interruption(failure)
                if isinstance(failure, RnncoreError):
                    _shorten(failure)
                    raise
                if failure.__traceback__ is not None and failure.__traceback__.tb_next is None:
                    raise  # the call itself does not fit
                where = line_of(failure) if line_of is not None else ""
                at = f" at {where}" if where else ""
                text = str(failure).strip() or "no reason given"
                message = f"{doing} failed{at}: {type(failure).__name__}: {text}"
                raise error(shortened(message)) from failure
            finally:
                _handled.reset(token)

        return guarded

    return decorate


def shortened(text: str, most: int = MOST_LINES) -> str:
    """At most ``most`` lines of a text; the last one says how many are left out."""
    lines = text.splitlines()
    if len(lines) <= most:
        return text
    return "\n".join([*lines[: most - 1], f"  ... and {len(lines) - most + 1} more lines"])


def pass_on_interruption(failure: BaseException) -> None:
    """Raise what a signal handler raised, if that is what is behind ``failure``: it is no failure of ours to handle."""
    for link in chain_of(failure):
        if from_signal_handler(link):
            raise link


def chain_of(failure: BaseException) -> Iterator[BaseException]:
    """An exception and those that it was raised for, since the public function was called."""
    seen: set[int] = set()
    link: BaseException | None = failure
    while link is not None and link is not _handled.get() and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _shorten(failure: RnncoreError) -> None:
    text = str(failure)
    short = shortened(text)
    if short != text:
        failure.args = (short, *failure.args[1:])
