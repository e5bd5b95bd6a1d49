"""The example service of speech: two clients at once get what the file says of each wave alone."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from rnncore.runtime import LogMel, Recogniser
from tests.examples.conftest import EXAMPLES

pytestmark = pytest.mark.slow


def test_clients_get_partial_and_final_texts_of_their_own_waves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, mel = tmp_path / "new" / "speech.onnx", LogMel(8000, stacked=3)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    importlib.import_module("speech_service").small_recogniser(model, mel)  # as the service does where there is none
    random = np.random.default_rng(0)
    waves = [(random.normal(0, 3000, size)).astype("<i2") for size in (7001, 5300)]
    command = [
        sys.executable,
        str(EXAMPLES / "speech_service.py"),
        "--model",
        str(model),
        "--beams",
        "4",
        "--seconds",
        "200",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with connect(url) as one, connect(url) as two, connect(url) as three:
                clients = (one, two)
                assert [json.loads(client.recv(timeout=60)) for client in (*clients, three)] == [{"rate": 8000}] * 3
                for start in range(0, 8000, 997):
                    for client, wave in zip(clients, waves, strict=True):
                        client.send(wave[start : start + 997].tobytes())
                    for client in clients:
                        assert isinstance(json.loads(client.recv(timeout=60))["partial"], str)
                three.send(b"odd")
                with pytest.raises(ConnectionClosed):
                    three.recv(timeout=60)
                finals = [_ended(client) for client in clients]
        finally:
            process.terminate()
    recogniser = Recogniser.load(model)
    for wave, final in zip(waves, finals, strict=True):
        stream = mel.stream()
        rows = np.concatenate((stream.push(wave), stream.finish()))
        found = recogniser.timed(rows, beams=4)
        assert final["final"] == found.text
        assert [letter[:3] for letter in final["letters"]] == [
            [one.label, one.start * 30.0, one.end * 30.0] for one in found.labels
        ]


def _ended(client: Any) -> dict[str, Any]:
    client.send("end")
    answer: dict[str, Any] = json.loads(client.recv(timeout=60))
    return answer
