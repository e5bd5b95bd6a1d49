"""Exchange a model of two files again and again: publish.py WHAT FOLDER, run by test_publishing in a process of its own.

FOLDER has two models, a/m.onnx and b/m.onnx, each with its second file.  Prints what happened as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from rnncore import runtime
from rnncore.export.file import saving

EXCHANGES, READS, WRITERS, READERS = 25, 25, 2, 2
EVENTS = ("open", "os.", "shutil.", "pathlib.", "fcntl.", "tempfile.")
X = np.linspace(-1, 1, 15, dtype=np.float32).reshape(1, 3, 5)


def publish(source: Path, target: Path) -> None:
    """The model of folder ``source``, with its second file, in place of ``target``."""
    with saving(target) as temporary:
        for file in source.iterdir():
            shutil.copyfile(file, temporary if file.suffix == ".onnx" else temporary.parent / file.name)


def answer(path: Path) -> bytes:
    return runtime.load(path).run(X).tobytes()


def forked(work: object, *arguments: object) -> int:
    """The id of a child that does ``work`` and exits with 0, or with 1 if that raised."""
    child = os.fork()
    if child:
        return child
    try:
        work(*arguments)  # type: ignore[operator]
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def publish_and_die(source: Path, target: Path, point: int) -> None:
    """Die at the ``point``-th thing that is asked of the system."""
    seen = 0

    def count(event: str, _: object) -> None:
        nonlocal seen
        if event.startswith(EVENTS):
            if seen == point:
                signal.raise_signal(signal.SIGKILL)  # no event itself
            seen += 1

    sys.addaudithook(count)
    publish(source, target)


def kills(folder: Path) -> dict[str, int]:
    """Killed at every single point of an exchange: what is there afterwards is one of the two models, whole."""
    target, sources = folder / "here" / "m.onnx", (folder / "a", folder / "b")
    known = {answer(source / "m.onnx"): source.name for source in sources}
    publish(sources[0], target)
    point, wrong, left = 0, 0, 0
    while True:
        now = known[answer(target)]
        other = sources[now == "a"]
        _, status = os.waitpid(forked(publish_and_die, other, target, point), 0)
        try:
            wrong += answer(target) not in known
        except runtime.RnncoreError as error:
            print(repr(error), file=sys.stderr)
            wrong += 1
        left = max(left, len(list(target.parent.iterdir())))
        if os.WIFEXITED(status):
            break
        point += 1
    publish(sources[0], target)
    return {"points": point, "wrong": wrong, "most files": left, "files": len(list(target.parent.iterdir()))}


def exchange(folder: Path, first: int) -> None:
    for turn in range(EXCHANGES):
        publish(folder / "ab"[(first + turn) % 2], folder / "here" / "m.onnx")


def read(folder: Path) -> None:
    known = {answer(folder / name / "m.onnx") for name in "ab"}
    for _ in range(READS):
        assert answer(folder / "here" / "m.onnx") in known


def races(folder: Path) -> dict[str, int]:
    """Several that write, several that read, all at the same time."""
    target = folder / "here" / "m.onnx"
    publish(folder / "a", target)
    children = [forked(exchange, folder, first) for first in range(WRITERS)]
    children += [forked(read, folder) for _ in range(READERS)]
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    read(folder)
    return {"failed": failed, "files": len(list(target.parent.iterdir()))}


if __name__ == "__main__":
    works = {"kills": kills, "races": races}
    print(json.dumps(works[sys.argv[1]](Path(sys.argv[2]))))
