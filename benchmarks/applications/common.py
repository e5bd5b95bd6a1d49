"""What the applications share: splits without duplicates, files in float32 and int8, time of a step."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

from rnncore.export import export_model, export_translator
from rnncore.models import EncoderDecoder, TaskModel
from rnncore.runtime.errors import RnncoreError
from rnncore.text import Vocabulary

Example = TypeVar("Example")

sys.path.append(
    str(Path(__file__).resolve().parents[2] / "examples")
)  # the readers of the data are those of the examples


class Split(NamedTuple):
    """Examples to train with, to choose by, and to test once."""

    train: list[Any]
    valid: list[Any]
    test: list[Any]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many each of them has."""
        return len(self.train), len(self.valid), len(self.test)


def without_duplicates(examples: Iterable[Example], key: Callable[[Example], Hashable]) -> list[Example]:
    """The first example of each key, in order."""
    found: dict[Hashable, Example] = {}
    for example in examples:
        found.setdefault(key(example), example)
    return list(found.values())


def split(examples: Sequence[Example], *, valid: float = 0.15, test: float = 0.15, seed: int = 0) -> Split:
    """A shuffled split by parts of the whole; hand in :func:`without_duplicates`."""
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)
    tests, valids = round(test * len(shuffled)), round(valid * len(shuffled))
    return Split(shuffled[tests + valids :], shuffled[tests : tests + valids], shuffled[:tests])


class Files(NamedTuple):
    """The files of a model; ``int8`` is None where the export refuses it, with the reason in ``why``."""

    fp32: Path
    int8: Path | None
    why: str

    @property
    def sizes(self) -> tuple[int, int | None]:
        """Bytes of both."""
        return self.fp32.stat().st_size, None if self.int8 is None else self.int8.stat().st_size


def files_of(model: TaskModel, *, accuracy_data: Sequence[Any] | None = None, **options: Any) -> Files:
    """Export ``model`` in float32 and in int8; arguments as of :func:`rnncore.export.export_model`."""
    return _both(partial(export_model, model, **options), accuracy_data=accuracy_data)


def translator_files(model: EncoderDecoder, source: Vocabulary, target: Vocabulary) -> Files:
    """As :func:`files_of`, of a translator."""
    return _both(partial(export_translator, model, source_vocabulary=source, target_vocabulary=target))


def _both(export: Callable[..., object], **for_int8: Any) -> Files:
    """What ``export`` writes to a path, and with ``quantize="int8"`` and these options to another."""
    folder = Path(tempfile.mkdtemp(prefix="rnncore-applications-"))
    whole, small = folder / "model.onnx", folder / "int8.onnx"
    export(path=whole)
    try:
        export(path=small, quantize="int8", **for_int8)
    except RnncoreError as refusal:
        return Files(whole, None, str(refusal).splitlines()[0])
    return Files(whole, small, "")


def step_us(answer: Callable[[Any], object], inputs: Sequence[Any], steps: int, rounds: int = 5) -> float:
    """Microseconds a step: ``answer`` to each input alone, ``steps`` of them together; the median of some rounds.

    Of the processor, which does not count what others do on the machine meanwhile.
    """
    times = []
    for _ in range(1 + rounds):
        start = time.process_time()
        for one in inputs:
            answer(one)
        times.append(time.process_time() - start)
    return median(times[1:]) / max(1, steps) * 1e6


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start
