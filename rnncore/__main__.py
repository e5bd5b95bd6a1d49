"""The command ``rnncore``, also ``python -m rnncore``."""

from __future__ import annotations

import codecs
import json
import os
import sys
from importlib.metadata import version


def main() -> None:
    """Run the command line; without the packages it needs, say which extra to install and exit with 1."""
    _print_everything()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by onnxruntime when it is loaded
    if sys.argv[1:] == ["--version"]:  # a bare install can say this much
        print(f"rnncore {version('rnncore')}")
        return
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        from rnncore.runtime.errors import MissingExtraError

        sys.exit(f"error: {MissingExtraError(str(error.name), 'text', 'the rnncore command')}")
    from rnncore.cli.app import app

    try:
        app(prog_name="rnncore")
    except OSError as error:  # of no command of ours: completion is written into the home directory
        sys.exit(f"error: {error.filename}: {error.strerror}" if error.filename is not None else f"error: {error}")


def _print_everything() -> None:
    """Let a terminal or pipe that is not in UTF-8 have what it cannot show as JSON spells it, in place of a traceback."""
    codecs.register_error("rnncore.escaped", _escaped)
    for stream in (sys.stdout, sys.stderr):
        encoding = getattr(stream, "encoding", None) or ""
        if hasattr(stream, "reconfigure") and encoding.lower().replace("-", "") not in ("utf8", "utf8sig"):
            stream.reconfigure(errors="rnncore.escaped")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """An error handler of ``codecs``: ``\\uXXXX``, which is right inside of JSON too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


if __name__ == "__main__":
    main()
