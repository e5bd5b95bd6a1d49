"""The example service with clients that mean no good: each is closed with a code, and the others notice nothing."""

from __future__ import annotations

import asyncio
import importlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.language_models import model_file, runtime_model

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., AbstractContextManager[tuple[str, Path]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "small.onnx"
    path.write_bytes(model_file())
    return path


@pytest.fixture
def start(model: Path, tmp_path: Path) -> Start:
    @contextmanager
    def started(*options: str) -> Iterator[tuple[str, Path]]:
        log = tmp_path / "log"
        program = [sys.executable, str(ROOT / "examples" / "token_service.py"), "--model", str(model)]
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [*program, "--seconds", "200", *options], stdout=subprocess.PIPE, stderr=errors
            ) as process,
        ):
            try:
                assert process.stdout is not None
                yield process.stdout.readline().decode().strip(), log
            finally:
                process.terminate()

    return started


def code_of(client: ClientConnection) -> int | None:
    """The code that the service closes with."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.recv(timeout=60)
    return closed.value.rcvd.code if closed.value.rcvd else None


def ask(client: ClientConnection, text: str) -> Any:
    client.send(text)
    return json.loads(client.recv(timeout=60))


def test_what_is_no_text_closes_with_a_code_and_a_line(start: Start) -> None:
    with start() as (url, log), connect(url) as good:
        with connect(url) as binary:
            binary.send(b"abc")
            assert code_of(binary) == 1003
        with connect(url) as invalid:
            invalid.socket.sendall(b"\x81\x82\x00\x00\x00\x00\xff\xfe")  # a text frame that is no UTF-8
            assert code_of(invalid) == 1007
        with connect(url) as long:
            long.send("a" * 5000)
            assert code_of(long) == 1009
        with connect(url, origin="https://elsewhere.example") as foreign:  # type: ignore[arg-type]
            assert code_of(foreign) == 1008
        with connect(url) as hasty:
            for _ in range(2000):
                try:
                    hasty.send("a" * 4000)
                except ConnectionClosed:
                    break
            assert code_of(hasty) in (1008, 1011, None)  # what it sees of it, with its hands full
        assert len(ask(good, "abc")["log_probs"]) == 3
        lines = [line for line in log.read_text().splitlines() if "token_service" in line]
        assert [line for line in lines if "binary frame" in line] and [line for line in lines if "other sites" in line]
        assert "Traceback" not in log.read_text()
        base = url.replace("ws://", "http://").removesuffix("/score")
        for page in ("/stats", "/docs", "/openapi.json"):
            with pytest.raises(HTTPError, match="404"):
                urlopen(base + page)


def test_who_does_not_read_does_not_keep_the_connection(start: Start) -> None:
    """It asks, slowly enough to be answered, and reads nothing: neither its answers nor why it is closed."""
    with start("--send-s", "1") as (url, log), socket.socket() as client:
        host, port = urlsplit(url).netloc.split(":")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect((host, int(port)))
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
        client.sendall(
            f"GET /score HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n".encode()
        )
        assert client.recv(12) == b"HTTP/1.1 101"
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe|aborted"):
            for _ in range(3000):
                client.sendall(b"\x81\xfe\x0f\xa0\0\0\0\0" + b"abcd" * 1000)
                time.sleep(0.02)
        assert "closed with 1008" in log.read_text()


def test_limits_of_clients_idleness_and_tokens(start: Start) -> None:
    with start("--max-clients", "2", "--idle-s", "3", "--token", "secret", "--stats") as (url, _):
        known = {"Authorization": "Bearer secret"}
        with connect(url, additional_headers={"Authorization": "Bearer wrong"}) as stranger:
            assert code_of(stranger) == 1008
        with connect(url, additional_headers=known) as one, connect(url, additional_headers=known) as two:
            with connect(url, additional_headers=known) as third:
                assert code_of(third) == 1013
            assert len(ask(one, "ab")["log_probs"]) == 2
            assert code_of(two) == 1008, "idle"
        base = url.replace("ws://", "http://").removesuffix("/score")
        with pytest.raises(HTTPError, match="401"):
            urlopen(base + "/stats")
        assert json.load(urlopen(Request(base + "/stats", headers=known)))["pushes"] >= 2


def test_who_leaves_takes_its_work_with_it(start: Start) -> None:
    """Steps are counted: of all that was sent, and not waited for, next to nothing is run."""
    with start("--stats") as (url, _):
        stats = url.replace("ws://", "http://").removesuffix("/score") + "/stats"
        sent = 0
        for _ in range(10):
            with connect(url) as client:
                for _ in range(8):
                    client.send("ab" * 2000)
                    sent += 4000
        end = time.monotonic() + 60
        while json.load(urlopen(stats))["streams"] or json.load(urlopen(stats))["pending"]:
            assert time.monotonic() < end
        assert json.load(urlopen(stats))["steps"] < sent
        with connect(url) as good:
            assert len(ask(good, "abc")["log_probs"]) == 3


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("token_service")


@pytest.mark.parametrize("turns", range(4))
def test_a_client_that_is_closed_is_not_answered_any_more(service: ModuleType, turns: int) -> None:
    """Its next message may come at the very moment, some turns of the event loop before: that must not be lost in it."""

    class Deaf:
        async def send_json(self, content: object) -> None:
            await asyncio.sleep(3600)

    async def closed() -> bool:
        model = runtime_model()
        async with model.model.pool(max_wait_ms=0) as pool:
            messages: asyncio.Queue[str] = asyncio.Queue()
            limits = service.Limits(idle_s=3600, send_s=3600)
            task = asyncio.ensure_future(service.answer(Deaf(), model, pool.open(), messages, limits))
            while pool.stats()["pushes"] == 0 or pool.stats()["pending"]:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            messages.put_nowait("")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=20)
            return bool(done) and task.cancelled()

    assert asyncio.run(closed())


def test_who_comes_again_and_again_waits_at_the_door(service: ModuleType) -> None:
    """At a made-up clock: a burst is let in, then so many a second; who would wait too long is sent away, without a place."""
    door = service.Door(8.0)  # a pause of 1/8 s: every sum is exact
    now = 1000.0
    assert [door.wait_s(now) for _ in range(service.SPARE + 1)] == [0.0] * (service.SPARE + 1)
    waits = []
    with pytest.raises(service.Refused, match="try again later"):
        while True:
            waits.append(door.wait_s(now))
    assert waits == pytest.approx([0.125 * (i + 1) for i in range(len(waits))]) and max(waits) <= service.LONGEST_WAIT_S
    for _ in range(1000):
        with pytest.raises(service.Refused):
            door.wait_s(now)
    assert door.wait_s(now + 0.25) <= service.LONGEST_WAIT_S, "those who were sent away hold nobody up"
    assert door.wait_s(now + 3600) == 0.0
