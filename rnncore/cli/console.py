"""Where the command line writes, and how it fails."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.text import Text

from rnncore.runtime.errors import InputError, RnncoreError

P = ParamSpec("P")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
"""The option of every command that has something to tell."""

STDIN = "-"
"""Where a text or a file is expected: read it from standard input."""

_INTERRUPTED = 130  # 128 + SIGINT, what a shell expects of a program stopped by Ctrl-C


_WIDE = 1000  # columns where nobody looks: a table in a file or a pipe is not folded


def output() -> Console:
    """Results: standard output, no markup."""
    return _console(stderr=False)


def messages() -> Console:
    """Everything that is no result: standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, soft_wrap=True, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def printable(text: object, most: int = 2000) -> str:
    """A text that came out of a file, for a terminal: what is not printed is spelled out, and the rest of a long one left out."""
    shown = str(text)
    shown = shown if len(shown) <= most else shown[:most] + f"… ({len(shown) - most} more characters)"
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in shown)


def tell(told: str, data: dict[str, Any], as_json: bool) -> None:
    """Print what a command did: in words, or as one line of JSON."""
    typer.echo(json.dumps(data) if as_json else printable(told, 100_000))


def text_argument(text: str) -> str:
    """A text of the command line; ``-`` is standard input, whose last line end does not count.

    Raises:
        InputError: standard input is not UTF-8.
    """
    if text != STDIN:
        return text
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input: byte {error.start} is not valid UTF-8: convert it to UTF-8 first") from None


def model_argument(model: Path) -> Path | bytes:
    """A model file of the command line; ``-`` is its bytes from standard input.

    Raises:
        InputError: nothing comes from standard input.
    """
    if str(model) != STDIN:
        return model
    data = sys.stdin.buffer.read()
    if not data:
        raise InputError("standard input: no model in it")
    return data


def was_given(context: typer.Context, name: str) -> bool:
    """Whether the caller gave this option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what users can get wrong into ``error: ...`` and exit code 1; Ctrl-C into exit code 130; no traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read the output has gone (`| head`): nothing to say, and nobody to say it to at interpreter exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except RnncoreError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"{error.filename}: {error.strerror}" if error.filename is not None else str(error))
        except KeyboardInterrupt:
            messages().print("interrupted")
            raise typer.Exit(_INTERRUPTED) from None

    return wrapped


def _fail(message: str) -> None:
    messages().print(Text("error: " + printable(message, 10_000), style="red"))
    raise typer.Exit(1)
