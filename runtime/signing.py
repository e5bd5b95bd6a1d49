"""Who made a file?  A detached Ed25519 signature beside it, made with a private key and checked with the public one.

The fingerprint in a file tells a damaged file from a whole one, but anybody can compute it: it is a checksum.  A signature is
made of the file's hash, and of the hash and name of every file that it reads weights from.

``FILE.sig`` is JSON: ``rnncore_signature`` (1), ``algorithm`` ("ed25519"), ``key`` (the first 16 hex digits of the SHA-256 of
the public key, to tell keys apart), ``weights`` (SHA-256 by name) and ``signature`` (base64), of these lines of UTF-8, each
with a line feed at its end::

    rnncore signature 1
    model SHA256
    weights SHA256 NAME          for each file with weights, in the order of the names
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnncore.runtime.error_boundary import only_own_errors
from rnncore.runtime.errors import InputError, MissingExtraError, ModelFileError, SignatureError
from rnncore.runtime.format.atomic import replacing
from rnncore.runtime.format.external_data import Contents, read_foreign_weights
from rnncore.runtime.format.limits import DEFAULT_LIMITS, Limits
from rnncore.runtime.format.reading import read_file
from rnncore.runtime.format.structure import Structure

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SUFFIX = ".sig"
_VERSION = 1
_MOST_BYTES = 1 << 16  # of a key or a signature
_KEY_DIGITS = 16

Key = str | os.PathLike[str] | bytes
"""A key in PEM, or the path of a file that holds one."""


@only_own_errors(ModelFileError, "signing the file")
def sign(
    path: str | os.PathLike[str], private_key: Key, *, password: bytes | None = None, limits: Limits = DEFAULT_LIMITS
) -> Path:
    """Sign a model file, and the files with its weights; returns the path of the signature, ``path`` with ".sig" behind it.

    path: any ONNX file, of rnncore or of others.
    private_key: an Ed25519 key in PEM, or the path of one, such as ``openssl genpkey -algorithm ed25519`` writes.
    password: of an encrypted key.

    Raises InputError for what is no such key, ModelFileError for what is no ONNX file, MissingExtraError without the package
    ``cryptography``: ``pip install 'rnncore[signing]'``.
    """
    hazmat = _library()
    key = _loaded(private_key, "private_key", lambda data: hazmat.load_pem_private_key(data, password))
    if not isinstance(key, hazmat.Ed25519PrivateKey):
        raise InputError("private_key is no Ed25519 key: make one with openssl genpkey -algorithm ed25519")
    model = Path(path)
    data = read_file(model, limits.file_bytes, "file_bytes")
    outside = Structure.of(data, limits).outside
    weights = read_foreign_weights(outside, str(model), limits)
    hashes = {name: hashlib.sha256(content.data).hexdigest() for name, content in weights.items()}
    signature = key.sign(_statement(data, hashes))
    content = {
        "rnncore_signature": _VERSION,
        "algorithm": "ed25519",
        "key": _key_name(key.public_key()),
        "weights": hashes,
        "signature": base64.b64encode(signature).decode("ascii"),
    }
    target = model.with_name(model.name + SUFFIX)
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return target


def check_signature(model: bytes, signature: bytes, public_key: Key) -> dict[str, str]:
    """SHA-256 by name of the files with weights that a model may read, if it is signed; nothing of it has been read before.

    signature: the content of a file that :func:`sign` wrote.  Raises SignatureError unless it is of this model by this key.
    """
    hazmat = _library()
    key = _loaded(public_key, "public_key", hazmat.load_pem_public_key)
    if not isinstance(key, hazmat.Ed25519PublicKey):
        raise InputError("public_key is no Ed25519 key: openssl pkey -in private.pem -pubout writes it")
    try:
        content = json.loads(signature)
        version, algorithm, named = content["rnncore_signature"], content["algorithm"], str(content["key"])
        weights = {str(name): str(digest) for name, digest in content["weights"].items()}
        raw = base64.b64decode(content["signature"], validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SignatureError("the signature cannot be read: sign the file again") from None
    if (version, algorithm) != (_VERSION, "ed25519"):
        raise SignatureError("the signature is of another kind than this rnncore knows: upgrade rnncore")
    try:
        key.verify(raw, _statement(model, weights))
    except hazmat.InvalidSignature:
        other = "" if named == _key_name(key) else f"; it says that it is by the key {named[:_KEY_DIGITS]!r}"
        raise SignatureError(f"the signature is not one of this file by the key {_key_name(key)!r}{other}") from None
    return weights


def check_signed_weights(contents: Contents, signed: Mapping[str, str]) -> None:
    """Raise SignatureError unless the files that a model reads weights from are those that were signed with it."""
    found = {name: hashlib.sha256(content.data).hexdigest() for name, content in contents.items()}
    if found != signed:
        raise SignatureError("the weights beside the file are not those that it was signed with")


def read_signature(path: str | os.PathLike[str]) -> bytes:
    """The signature beside a model file; SignatureError when there is none."""
    file = Path(path).with_name(Path(path).name + SUFFIX)
    try:
        return read_file(file, _MOST_BYTES, "file_bytes")
    except ModelFileError as error:
        raise SignatureError(f"the file is not signed: {error}") from None


def _statement(model: bytes, weights: Mapping[str, str]) -> bytes:
    lines = [f"rnncore signature {_VERSION}", f"model {hashlib.sha256(model).hexdigest()}"]
    lines += [f"weights {weights[name]} {name}" for name in sorted(weights)]
    return "".join(line + "\n" for line in lines).encode(errors="surrogatepass")


def _key_name(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_KEY_DIGITS]


def read_key(key: Key, name: str = "public_key") -> bytes:
    """The PEM of a key; InputError if the file cannot be read."""
    try:
        return key if isinstance(key, bytes) else read_file(Path(key), _MOST_BYTES, "file_bytes")
    except (ModelFileError, TypeError) as error:
        raise InputError(f"{name} cannot be read: {error}") from None


def _loaded(key: Key, name: str, load: Any) -> Any:
    data = read_key(key, name)
    try:
        return load(data)
    except Exception as error:  # the library raises several, for a wrong password too
        raise InputError(f"{name} is no key in PEM that can be read: {error}") from None


class _Library:
    """What is used of ``cryptography``."""

    def __init__(self) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519

        self.InvalidSignature = InvalidSignature
        self.Ed25519PrivateKey = ed25519.Ed25519PrivateKey
        self.Ed25519PublicKey = ed25519.Ed25519PublicKey
        self.load_pem_private_key = serialization.load_pem_private_key
        self.load_pem_public_key = serialization.load_pem_public_key


def _library() -> _Library:
    try:
        return _Library()
    except ImportError:
        raise MissingExtraError("cryptography", "signing", "signing files and checking who signed them") from None
