"""Every task over columns; Ray itself: parquet to parquet by actors, and streams over two replicas of which one is killed.

CI has no Ray: these run by ``scripts/ecosystem``, which installs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rnncore import runtime
from rnncore.export import export
from rnncore.ray import Classify, Embed, Rate, Run, StreamSession, Tag, stream_app
from rnncore.runtime import InputError
from tests.task_models import TOKENS, model_file, sequences
from tests.tolerances import fixed

ray = pytest.importorskip("ray", reason="Ray is not installed: scripts/ecosystem installs it")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),  # of Ray about Ray
]


def objects(rows: list[Any]) -> np.ndarray:
    column = np.empty(len(rows), object)
    column[:] = rows
    return column


FEATURES, SESSIONS, CHUNKS = 3, 12, 10
LENGTHS = [4, 1, 7]


class Sum(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.gru = torch.nn.GRU(FEATURES, 7, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x)[0]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Ray gives its web server five seconds to start, and kills it; a busy machine needs longer.
        for name in ("READY_CHECK", "HEALTH_CHECK"):
            patch.setenv(f"RAY_SERVE_PROXY_{name}_TIMEOUT_S", "300")
        ray.init(num_cpus=4, include_dashboard=False, logging_level="error", configure_logging=True)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "m.onnx"
    export(Sum().eval(), path, torch.randn(2, 5, FEATURES))
    return path


def test_parquet_to_parquet_by_actors(cluster: None, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    name = "embedder, statistics"
    rows = sequences(name, [1 + i % 9 for i in range(200)], 7)
    (tmp_path / "in").mkdir()
    for part in range(4):
        table = pyarrow.table({"x": [row.tolist() for row in rows[part::4]], "id": list(range(part, 200, 4))})
        parquet.write_table(table, tmp_path / "in" / f"{part}.parquet")
    data = ray.data.read_parquet(str(tmp_path / "in"))
    mapper = Embed(model_file(name), "x")
    data.map_batches(mapper, batch_format="pyarrow", batch_size=16).write_parquet(str(tmp_path / "out"))
    found = parquet.read_table(tmp_path / "out").sort_by("id")
    assert found["id"].to_pylist() == list(range(200))
    expected = runtime.Embedder.load(model_file(name)).embed_many(rows)
    np.testing.assert_allclose(
        np.array(found["embedding"].to_pylist(), np.float32), expected, rtol=fixed("float32"), atol=fixed("float32")
    )


def test_a_killed_replica_loses_nothing(cluster: None, file: Path) -> None:
    from ray import serve

    handle = _served(stream_app(file, replicas=2, pool={"max_batch": 8}))
    random = np.random.default_rng(0)
    steps = random.standard_normal((SESSIONS, CHUNKS * 2, FEATURES)).astype(np.float32)
    expected = runtime.load(file).run(steps)
    sessions = [StreamSession(handle) for _ in range(SESSIONS)]
    found: list[list[Any]] = [[] for _ in sessions]
    pids = set()
    for chunk in range(CHUNKS):
        if chunk == CHUNKS // 2:
            pids = {handle.stats.remote().result()["pid"] for _ in range(20)}
            os.kill(min(pids), signal.SIGKILL)
        for number, session in enumerate(sessions):
            found[number].append(session.push(steps[number, 2 * chunk : 2 * chunk + 2]))
    assert len(pids) == 2, "both replicas have answered"
    for number, session in enumerate(sessions):
        assert session.steps == 2 * CHUNKS
        np.testing.assert_allclose(
            np.concatenate(found[number]), expected[number], rtol=fixed("float32"), atol=fixed("float32")
        )
    moved = StreamSession(handle, sessions[0].state)
    again = StreamSession(handle, sessions[0].state)
    np.testing.assert_array_equal(moved.push(steps[0, :1]), again.push(steps[0, :1]))
    state = sessions[1].state
    with pytest.raises(InputError):
        sessions[1].push(np.zeros((2, FEATURES + 1), np.float32))
    assert sessions[1].state == state
    _over_http(steps[0], expected[0])
    serve.shutdown()


def _served(app: Any) -> Any:
    """The handle; Ray waits a minute for its web server, which a busy machine does not start in one."""
    from ray import serve

    for _ in range(5):
        with contextlib.suppress(TimeoutError):
            return serve.run(app, name="streams", route_prefix="/streams")
    raise AssertionError("Ray's web server does not start")


def test_every_task_has_its_columns() -> None:
    rows = sequences("classifier, last", LENGTHS, 2)
    found = Classify(model_file("classifier, last"), "x", into="kind")({"x": objects(rows)})
    expected = runtime.Classifier.load(model_file("classifier, last")).probabilities_many(rows)
    assert list(found["kind"]) == [max(one, key=one.__getitem__) for one in expected]
    np.testing.assert_array_equal(found["kind_probability"], [max(one.values()) for one in expected])
    rated = Rate(model_file("rater, max"), "x")({"x": objects(sequences("rater, max", LENGTHS, 3))})
    np.testing.assert_array_equal(
        rated["rating"], runtime.Rater.load(model_file("rater, max")).rate_many(sequences("rater, max", LENGTHS, 3))
    )
    words = [list(TOKENS[:3]), list(TOKENS[4:])]
    tagged = Tag(model_file("tagger"), "words")({"words": objects(words)})
    assert list(tagged["tags"]) == runtime.Tagger.load(model_file("tagger")).tag_many(words)


def test_any_model_of_one_input_and_one_output_runs() -> None:
    rows = sequences("tagger, crf", LENGTHS, 4)
    found = Run(model_file("tagger, crf"), "x")({"x": objects(rows)})
    for got, expected in zip(found["output"], runtime.load(model_file("tagger, crf")).run(rows), strict=True):
        np.testing.assert_array_equal(got, expected)


def _over_http(steps: np.ndarray, expected: np.ndarray) -> None:
    state = None
    for at in range(0, 6, 3):
        body = {"inputs": {"x": steps[at : at + 3].tolist()}} | ({} if state is None else {"state": state})
        status, answer = _posted(json.dumps(body).encode())
        assert status == 200, answer
        np.testing.assert_allclose(
            np.array(answer["outputs"]["output"]), expected[at : at + 3], rtol=fixed("float32"), atol=fixed("float32")
        )
        state = answer["state"]
    assert answer["steps"] == 6
    for wrong in (b"{", b'{"inputs": {"x": [[1]]}}', json.dumps({**body, "state": "AAAA"}).encode()):
        status, answer = _posted(wrong)
        assert status == 400
        assert answer["error"]


def _posted(body: bytes) -> tuple[int, Any]:
    for _ in range(40):
        try:
            with urllib.request.urlopen(
                urllib.request.Request("http://127.0.0.1:8000/streams", body), timeout=30
            ) as got:
                return got.status, json.loads(got.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except urllib.error.URLError:  # the proxy is still starting
            time.sleep(0.5)
    raise AssertionError("the service does not answer")
