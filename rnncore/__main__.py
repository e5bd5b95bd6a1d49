"""The command ``rnncore``, also ``python -m rnncore``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without the packages it needs, say which extra to install and exit with 1."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        from rnncore.runtime.errors import MissingExtraError

        sys.exit(f"error: {MissingExtraError(str(error.name), 'text', 'the rnncore command')}")
    from rnncore.cli.app import app

    app(prog_name="rnncore")


if __name__ == "__main__":
    main()
