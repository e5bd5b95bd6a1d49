"""Streams on Ray Serve: a pool in each replica, and the state of a session in the request.

Which replica gets a request is Serve's business, so a stream that lives in a replica meets another one with its next chunk, and
dies with it.  Here the state travels: a request brings the snapshot of its stream and takes the next one home.  A chunk that was
on its way when a replica died is sent again with the state of before, and neither lost nor counted twice.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncore.runtime.errors import (
    DeadlineExceeded,
    InputError,
    MissingExtraError,
    Overloaded,
    PoolError,
    RnncoreError,
    SnapshotError,
)
from rnncore.runtime.model import load
from rnncore.runtime.pool.stream import PoolStream

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

ATTEMPTS = 6
FIRST_PAUSE_S = 0.25
"""Before a chunk is sent again; twice as long each further time."""


class StreamServer:
    """What a replica runs: one model, one pool, no sessions; see :func:`stream_app`."""

    def __init__(self, source: str | bytes, options: Mapping[str, Any], pool: Mapping[str, Any]) -> None:
        self._model = load(source, **options)
        self._pool = self._model.pool(**pool)
        self._pool.warm_up((1,))

    async def push(
        self, state: bytes | None, chunks: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> tuple[Any, bytes, int]:
        """(what ``Stream.push`` returns, the state after it, steps so far); ``state`` None is the beginning of a stream."""
        stream = self._opened(state)
        try:
            answer = await stream.apush(*chunks, **(named or {}))
            return answer, stream.save(), stream.steps
        finally:
            stream.close()

    async def __call__(self, request: Any) -> Any:
        """The same over HTTP, as JSON.

        Request: ``{"inputs": {"x": [[...], ...]}, "state": "base64, left out at the beginning"}``.  Answer:
        ``{"outputs": {"y": [[...], ...]}, "state": "base64", "steps": 12}``, or ``{"error": "..."}`` with the status 400 for
        what is wrong with the request, 503 for too many requests, 504 for one that waited too long.
        """
        from starlette.responses import JSONResponse

        try:
            state, inputs = _read_request(await request.body())
            answer, after, steps = await self.push(state, (), inputs)
        except (Overloaded, DeadlineExceeded) as error:
            status = 503 if isinstance(error, Overloaded) else 504
            return JSONResponse({"error": str(error)}, status)
        except (InputError, SnapshotError) as error:
            return JSONResponse({"error": str(error)}, 400)
        outputs = answer if isinstance(answer, dict) else {self._model.outputs[0]: answer}
        told = {name: np.asarray(value).tolist() for name, value in outputs.items()}
        return JSONResponse({"outputs": told, "state": base64.b64encode(after).decode(), "steps": steps})

    def stats(self) -> dict[str, Any]:
        """The counters of this replica's pool, and its process."""
        return {**self._pool.stats(), "pid": os.getpid()}

    def check_health(self) -> None:
        """What Serve asks now and then; a replica whose pool is closed is replaced."""
        if self._pool.closed:
            raise PoolError("the pool of this replica is closed")

    def _opened(self, state: bytes | None) -> PoolStream:
        return self._pool.open() if state is None else self._pool.restore(state)


class StreamSession:
    """The client's side of one stream: it holds the state and sends every chunk with it.

    ::

        handle = serve.run(rnncore.ray.stream_app("monitor.onnx", replicas=2))
        session = StreamSession(handle)
        y = session.push(chunk)
        blob = session.state        # keep it anywhere; StreamSession(handle, blob) goes on

    Args:
        handle: what ``serve.run`` returns.
        state: where to go on, None for the beginning.
        attempts: how often a chunk is sent, at most, if replicas die or are overloaded.
    """

    def __init__(self, handle: DeploymentHandle, state: bytes | None = None, *, attempts: int = ATTEMPTS) -> None:
        if attempts < 1:
            raise InputError(f"attempts is {attempts}, expected at least 1")
        self._handle, self._attempts = handle, attempts
        self.state = state
        self.steps: int | None = None if state is not None else 0
        self.resent = 0

    def push(self, /, *chunks: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """What ``Stream.push`` returns, from whichever replica.

        timeout_s: how long one attempt may take, None for as long as it takes.

        Raises:
            InputError, SnapshotError and others of :mod:`rnncore.runtime.errors`: as ``Stream.push``; the state is as before.
            Overloaded: every attempt found the replicas overloaded.
            PoolError: every attempt failed for what is Ray's, which is the error's cause.
        """
        from ray.exceptions import RayError

        pause = FIRST_PAUSE_S
        for left in reversed(range(self._attempts)):
            try:
                sent = self._handle.push.remote(self.state, chunks, named)
                answer, self.state, self.steps = sent.result(timeout_s=timeout_s)
                return answer
            except (RayError, TimeoutError, RnncoreError) as error:
                self._raise_unless_passing(error, left)
            self.resent += 1
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    async def apush(self, /, *chunks: Any, **named: Any) -> Any:
        """:meth:`push` for asyncio."""
        from ray.exceptions import RayError

        pause = FIRST_PAUSE_S
        for left in reversed(range(self._attempts)):
            try:
                answer, self.state, self.steps = await self._handle.push.remote(self.state, chunks, named)
                return answer
            except (RayError, RnncoreError) as error:
                self._raise_unless_passing(error, left)
            self.resent += 1
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    @staticmethod
    def _raise_unless_passing(error: Exception, left: int) -> None:
        cause = getattr(error, "cause", None)
        own = cause if isinstance(cause, RnncoreError) else error if isinstance(error, RnncoreError) else None
        if own is not None and (not left or not isinstance(own, PoolError)):
            raise own from None
        if own is None and not left:
            raise PoolError(f"no replica answered: {type(error).__name__}: {str(error).splitlines()[0]}") from error


def stream_app(
    source: str | os.PathLike[str] | bytes,
    *,
    replicas: int = 2,
    pool: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    **deployment: Any,
) -> Application:
    """An application for ``ray.serve.run``: replicas of a model that streams, each with a pool.

    ``serve.run(stream_app("monitor.onnx"))`` starts Ray on this machine where there is no cluster.  Clients in Python are
    :class:`StreamSession`; others speak JSON, see :class:`StreamServer`.

    Args:
        source: path of the file, which every replica reads, or its bytes.
        replicas: how many; ``num_replicas`` of Serve.
        pool: arguments of ``Model.pool``, such as ``{"max_batch": 64}``.
        options: arguments of :func:`rnncore.runtime.load`.
        deployment: further arguments of ``serve.deployment``, such as ``autoscaling_config`` (then pass ``replicas=None``).

    Raises:
        MissingExtraError: Ray Serve is not installed.
        ModelFileError, NotStreamableError, InputError: what a replica would raise, before one is started.
    """
    try:
        from ray import serve
    except ImportError:
        raise MissingExtraError("ray", "ray", "rnncore.ray.stream_app") from None
    place = source if isinstance(source, bytes) else os.path.abspath(source)
    given = dict(pool or {})
    model = load(place, **(options or {}))
    model.pool(**given).close()
    # Serve hands a replica five requests at a time unless told otherwise, which would be the largest batch.
    chosen = {"name": "rnncore-streams", "max_ongoing_requests": given.get("max_pending", 1024), **deployment}
    made: Any = serve.deployment(StreamServer, num_replicas=replicas, **chosen)
    application: Application = made.bind(place, dict(options or {}), given)
    return application


def _read_request(body: bytes) -> tuple[bytes | None, dict[str, Any]]:
    try:
        read = json.loads(body)
        inputs, state = read["inputs"], read.get("state")
        if not isinstance(inputs, dict):
            raise TypeError("inputs is no object")
        return None if state is None else base64.b64decode(state, validate=True), inputs
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f'the request cannot be read ({error}): expected {{"inputs": {{"x": [[...]]}}, "state": "base64"}}'
        ) from None
