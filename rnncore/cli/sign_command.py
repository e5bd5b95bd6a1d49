"""``rnncore sign``: say who made a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rnncore.cli.console import AsJson, reports_errors, tell


@reports_errors
def sign(
    model: Annotated[Path, typer.Argument(help="Any ONNX file; the weights beside it are signed with it.")],
    key: Annotated[Path, typer.Option(help="Ed25519 private key in PEM: openssl genpkey -algorithm ed25519 -out FILE")],
    password_from: Annotated[
        str, typer.Option(help="Name of the environment variable with the password of the key.", metavar="NAME")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Write MODEL.sig, a signature of a model file and its weights, which load and verify check by the public key.

    The public key: openssl pkey -in FILE -pubout
    """
    from rnncore.runtime.errors import InputError
    from rnncore.runtime.signing import sign as sign_file

    password = os.environ.get(password_from) if password_from else None
    if password_from and password is None:
        raise InputError(f"there is no environment variable {password_from!r}")
    written = sign_file(model, key, password=None if password is None else password.encode())
    tell(f"wrote {written}", {"wrote": str(written)}, as_json)
