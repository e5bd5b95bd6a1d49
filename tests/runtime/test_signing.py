"""Signatures: of this very file with its weights by this very key, or an error; checked before anything else is read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rnncore import runtime
from rnncore.cli.app import app
from rnncore.runtime.format.container import FINGERPRINT_KEY, replace_metadata, stamp
from rnncore.runtime.format.signature import BLANK_FINGERPRINT
from tests.runtime.data import sequence
from tests.runtime.files import Spec, causal_file
from tests.runtime.test_weights_files import FEATURES, model_reading

pytest.importorskip("cryptography", reason="the extra 'signing' is not installed")


def keys(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """A new pair of keys in two files: private, public."""
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    cipher = s.NoEncryption() if password is None else s.BestAvailableEncryption(password)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, cipher))
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(causal_file())
    return path


def test_a_signed_file_loads_with_its_key_only(model: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    other, other_public = keys(tmp_path, "other")
    with pytest.raises(runtime.SignatureError, match="not signed"):
        runtime.load(model, public_key=public)
    assert runtime.sign(model, private) == tmp_path / "m.onnx.sig"
    for key in (public, str(public), public.read_bytes()):
        loaded = runtime.load(model, public_key=key)
    signature = (tmp_path / "m.onnx.sig").read_bytes()
    runtime.load(model.read_bytes(), public_key=public, signature=signature)
    x = sequence(Spec(), np.random.default_rng(3), 4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(loaded)).run([x])[0], loaded.run([x])[0])
    with pytest.raises(runtime.SignatureError, match="by the key"):
        runtime.load(model, public_key=other_public)
    with pytest.raises(runtime.SignatureError, match="hand it in"):
        runtime.load(model.read_bytes(), public_key=public)
    runtime.sign(model, other)
    with pytest.raises(runtime.SignatureError, match="it says that it is by the key"):
        runtime.load(model, public_key=public)
    runtime.load(model)  # nobody asked


def test_a_file_with_a_right_fingerprint_is_not_a_signed_one(model: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    runtime.sign(model, private)
    changed = stamp(replace_metadata(model.read_bytes(), {"rnncore.form": "scan", FINGERPRINT_KEY: BLANK_FINGERPRINT}))
    model.write_bytes(changed)
    runtime.load(model)
    for read in (runtime.load, runtime.verify):
        with pytest.raises(runtime.SignatureError, match="is not one of this file"):
            read(model, public_key=public)


@pytest.mark.parametrize("change", ["weights", "name", "none"])
def test_the_signature_covers_the_second_file(change: str, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    path, weights = tmp_path / "m.onnx", tmp_path / "w"
    path.write_bytes(model_reading("w"))
    weights.write_bytes(np.eye(FEATURES, dtype=np.float32).tobytes())
    signature = runtime.sign(path, private)
    runtime.load(path, states={}, public_key=public)
    if change == "weights":
        weights.write_bytes(bytes(weights.stat().st_size))
    else:
        content = json.loads(signature.read_text())
        content["weights"] = {"v": content["weights"]["w"]} if change == "name" else {}
        signature.write_text(json.dumps(content))
    with pytest.raises(runtime.SignatureError):
        runtime.load(path, states={}, public_key=public)


@given(data=st.data())
def test_no_changed_signature_passes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("signed")
    private, public = keys(folder, "mine")
    (folder / "m.onnx").write_bytes(causal_file())
    signature = runtime.sign(folder / "m.onnx", private).read_bytes()
    content = json.loads(signature)
    key = data.draw(st.sampled_from(sorted(content)))
    values = st.one_of(st.none(), st.integers(), st.text(), st.booleans(), st.lists(st.text()), st.floats())
    content[key] = data.draw(values.filter(lambda value: value != content[key]))
    if key == "key":
        return  # a hint only
    with pytest.raises(runtime.SignatureError):
        runtime.load(causal_file(), public_key=public, signature=json.dumps(content).encode())
    for raw in (b"", b"[]", signature[:-9], b"\xff", data.draw(st.binary())):
        with pytest.raises(runtime.SignatureError):
            runtime.load(causal_file(), public_key=public, signature=raw)


def test_what_is_no_key_is_refused(model: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine", b"secret")
    (tmp_path / "text").write_text("no key")
    for key in (public, tmp_path / "text", tmp_path / "missing", tmp_path, b"", 7):
        with pytest.raises(runtime.InputError, match="private_key"):
            runtime.sign(model, key)  # type: ignore[arg-type]
    for password in (None, b"wrong"):
        with pytest.raises(runtime.InputError, match="private_key"):
            runtime.sign(model, private, password=password)
    runtime.sign(model, private, password=b"secret")
    for key in (private, tmp_path / "text", tmp_path / "missing", 7):
        with pytest.raises(runtime.InputError, match="public_key"):
            runtime.load(model, public_key=key)  # type: ignore[arg-type]
    (tmp_path / "text").write_bytes(b"not onnx")
    with pytest.raises(runtime.NotOnnxError):
        runtime.sign(tmp_path / "text", private, password=b"secret")


def test_from_the_command_line(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = keys(tmp_path, "mine", b"secret")
    monkeypatch.setenv("KEY_PASSWORD", "secret")
    signing = ["sign", str(model), "--key", str(private)]
    assert CliRunner().invoke(app, signing).exit_code == 1
    found = CliRunner().invoke(app, [*signing, "--password-from", "KEY_PASSWORD"])
    assert found.exit_code == 0 and "m.onnx.sig" in found.output
    runtime.load(model, public_key=public)
