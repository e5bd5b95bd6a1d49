"""Models in other processes: forked, spawned, pickled; pools at the end of the interpreter."""

from __future__ import annotations

import copy
import http.client
import json
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from rnncore import runtime
from tests.runtime.data import sequence
from tests.runtime.files import Spec, causal_file
from tests.service.alone import alone, assert_same

SPEC = Spec(lengths=True, learned=True)
A, B = (sequence(SPEC, np.random.default_rng(seed), 3) for seed in (1, 2))
WANTED = alone(SPEC, [(A,), (B,)])


def in_child(check: Callable[[], None], seconds: int = 20) -> None:
    """Run ``check`` in a forked child; a child that hangs is killed by its own alarm."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of forks with threads: that is the point
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with status {status}"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_forked_child_opens_the_model_again(threads: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(causal_file(SPEC))
    model = runtime.load(path, threads=threads)
    stream = model.stream()
    assert_same(stream.push(A), WANTED[0])
    stream.push(A[:1])
    stream.reset()
    stream.push(A)

    def check() -> None:
        assert_same(stream.push(B), WANTED[1])
        assert_same(model.stream().push(A), WANTED[0])
        assert_same(model.run(A[None])[0], WANTED[0])
        with model.pool() as pool:
            assert_same(pool.open().push(A), WANTED[0])

    in_child(check)
    in_child(lambda: in_child(check))  # a child of a child
    assert_same(stream.push(B), WANTED[1])


def test_a_fork_while_other_threads_are_at_work() -> None:
    model = runtime.load(causal_file(SPEC))
    streams = [model.stream() for _ in range(4)]
    over = threading.Event()

    def work(i: int) -> None:
        while not over.is_set():
            streams[i].push(A)

    crowd = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in crowd:
        thread.start()

    def check() -> None:
        for stream in streams:
            assert stream.steps % 3 == 0, "the state of a finished push"
            before = stream.state
            answer = stream.push(B)
            twin = model.stream()
            twin.set_state(before)
            assert_same(answer, twin.push(B))

    try:
        for _ in range(5):
            in_child(check)
    finally:
        over.set()
        for thread in crowd:
            thread.join()


def test_a_pool_belongs_to_its_process() -> None:
    model = runtime.load(causal_file(SPEC))
    with model.pool() as pool:
        stream = pool.open()
        stream.push(A)

        def check() -> None:
            for use in (lambda: stream.push(A), stream.save, stream.close, pool.open, pool.stats):
                with pytest.raises(runtime.PoolClosedError, match="forked"):
                    use()
            pool.close()

        in_child(check)
        assert_same(stream.push(B), WANTED[1])


def test_a_file_that_changed_is_not_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(causal_file(SPEC))
    model = runtime.load(path)
    text = pickle.dumps(model)
    path.write_bytes(causal_file(Spec(learned=True)))
    with pytest.raises(runtime.TamperedModelError, match="changed since"):
        pickle.loads(text)

    def check() -> None:
        with pytest.raises(runtime.TamperedModelError, match="changed since"):
            model.run(A[None])

    in_child(check)
    path.unlink()
    with pytest.raises(runtime.NotOnnxError, match="no such file"):
        pickle.loads(text)


def run_elsewhere(model: runtime.Model, blob: bytes) -> tuple[np.ndarray, bytes]:
    """In a spawned process."""
    with model.restore(blob) as stream:
        answer = stream.push(B)
        return answer, stream.save()


def test_spawned_workers_get_the_model_by_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(causal_file(SPEC))
    monkeypatch.chdir(tmp_path)
    model = runtime.load("model.onnx", threads=2, max_steps=50)
    assert len(pickle.dumps(model)) < 1000, "the path, not the weights"
    monkeypatch.chdir("/")
    stream = model.stream()
    stream.push(A)
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        answer, blob = workers.apply(run_elsewhere, (model, stream.save()))
    assert_same(answer, WANTED[1])
    stream.push(B)
    assert model.restore(blob).steps == stream.steps


def test_cloudpickle_as_ray_and_others_use_it(tmp_path: Path) -> None:
    """A closure over a model, by value, run in a spawned process: what Ray, Dask and joblib do with a task."""
    (tmp_path / "model.onnx").write_bytes(causal_file(SPEC))
    model = runtime.load(tmp_path / "model.onnx")
    stream = model.stream()
    stream.push(A)
    blob = stream.save()

    def task() -> np.ndarray:
        with model.restore(blob) as stream:
            answer: np.ndarray = stream.push(B)
            return answer

    text = cloudpickle.dumps(task)
    assert len(text) < 5000, "the path, not the weights"
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        assert_same(workers.apply(run_pickled, (text,)), WANTED[1])


def run_pickled(text: bytes) -> Any:
    """In a spawned process."""
    return pickle.loads(text)()


GUNICORN_APP = """
import json, os
import numpy as np
from rnncore.runtime import load

model = load("model.onnx")  # once, in the master, before it forks
model.stream().push(np.ones((3, 13), "f"))
pool = None


def app(environ, start_response):
    global pool
    if pool is None:
        pool = model.pool()  # a pool belongs to its process
    x = np.frombuffer(environ["wsgi.input"].read(), np.float32).reshape(-1, 13)
    with pool.open() as stream:
        y = stream.push(x)
    answer = json.dumps({"pid": os.getpid(), "y": y.tolist()}).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"""


@pytest.mark.slow
def test_gunicorn_workers_forked_from_one_loaded_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(causal_file(SPEC))
    (tmp_path / "service.py").write_text(GUNICORN_APP)
    options = ["--preload", "--workers", "2", "--bind", "unix:socket", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", *options, "service:app"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as master:
        try:
            answered: set[int] = set()
            end = time.monotonic() + 30
            while len(answered) < 2:
                assert time.monotonic() < end and master.poll() is None
                with ThreadPoolExecutor(4) as executor:
                    for answer in executor.map(lambda _: ask(tmp_path / "socket", A), range(8)):
                        if answer is not None:
                            answered.add(answer["pid"])
                            assert_same(np.array(answer["y"], np.float32), WANTED[0])
            assert master.pid not in answered
        finally:
            master.send_signal(signal.SIGTERM)
            _, log = master.communicate(timeout=20)
    assert "Traceback" not in log, log


def ask(path: Path, chunk: np.ndarray) -> Any:
    """One request over a socket file; None as long as nobody listens there."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(str(path))
        connection.request("POST", "/", chunk.tobytes())
        return json.loads(connection.getresponse().read())
    except (FileNotFoundError, ConnectionRefusedError):
        time.sleep(0.1)
        return None
    finally:
        connection.close()


def test_pickles_and_copies() -> None:
    model = runtime.load(causal_file(SPEC), max_steps=4)
    again = pickle.loads(pickle.dumps(model))
    assert again.fingerprint == model.fingerprint and again.signature == model.signature
    with pytest.raises(runtime.InputError, match="max_steps=4"):
        again.stream().push(np.zeros((5, 13), "f"))
    assert copy.copy(model) is copy.deepcopy(model) is model
    with pytest.raises(TypeError, match="save"):
        pickle.dumps(model.stream())
    with pytest.raises(TypeError, match="fork"):
        copy.copy(model.stream())


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise KeyError('on purpose')", "os.kill(os.getpid(), 15)"])
def test_the_interpreter_ends_with_pools_open(ending: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(causal_file(SPEC))
    code = textwrap.dedent("""
        import os, sys, threading, numpy as np
        from rnncore.runtime import load
        pool = load("model.onnx").pool(max_idle_s=100)
        stream = pool.open()
        stream.push(np.ones((3, 13), "f"))
        other = pool.open()
        other.on_output(lambda y: None)
        threading.Thread(target=lambda: [other.push(np.ones((1, 13), "f")) for _ in range(200)], daemon=True).start()
        print("done", flush=True)
    """)
    answer = subprocess.run(
        [sys.executable, "-c", code + ending], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert answer.stdout == "done\n"
    expected = {"": 0, "sys.exit(3)": 3}.get(ending, 1 if "raise" in ending else -15)
    assert answer.returncode == expected, answer.stderr
    assert "Fatal" not in answer.stderr


def test_quiet_unless_asked(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    runtime.load(causal_file(SPEC)).run(A[None])
    assert capfd.readouterr() == ("", "")
    with caplog.at_level(logging.INFO, logger="rnncore"):
        runtime.load(causal_file(SPEC))
    assert "loaded <Model" in caplog.text
