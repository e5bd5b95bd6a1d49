"""Chunk by chunk against the whole: short streams in many cuts, long ones beyond all that the module looks back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from rnncore.export.verification.bench import Bench, Question, outputs_of
from rnncore.export.verification.cases import TOGETHER_DETAIL, Case
from rnncore.export.verification.reference import Array, first_line
from rnncore.export.verification.sizes import SHORT_STREAM, Sizes, chunkings
from rnncore.runtime import Model
from rnncore.runtime.errors import InputError

TOGETHER = ((2, 9, 2), (4, 1, 8))  # chunks of streams that move in one call: the longer one is now one, now the other
CHUNKINGS = ((1,) * SHORT_STREAM, (4, 0, 1, 8), (SHORT_STREAM - 1, 1))


def stream_cases(bench: Bench, model: Model, sizes: Sizes) -> Iterator[Case]:
    """Every chunking, and streams that move in one call."""
    steps = SHORT_STREAM + model.signature.overlap
    try:
        yield from _chunked(bench, model, bench.draw(1, _whole(model, steps)), short_chunkings(model.signature.overlap))
        yield from _together(bench, model)
        steps = longest_stream(bench, sizes, model.signature.overlap)
        yield from _chunked(bench, model, bench.draw(1, _whole(model, steps)), chunkings(steps))
    except InputError as failure:  # what onnxruntime refuses: too few steps for a convolution, say
        yield Question("stream", 1, steps, []).failed(f"a chunk is refused: {first_line(failure)}")


def short_chunkings(overlap: int) -> list[tuple[int, ...]]:
    """How short streams are cut whose runs begin with ``overlap`` steps again: before the first answer and after it."""
    if not overlap:
        return list(CHUNKINGS)
    before = (1,) * overlap if overlap <= SHORT_STREAM else (overlap // 2, 0, overlap - overlap // 2)
    return [
        (*before, *CHUNKINGS[0]),
        (overlap, *CHUNKINGS[1]),
        (overlap + CHUNKINGS[2][0], 1),
        (overlap - 1, 2, 4, 1, 7),
    ]


def longest_stream(bench: Bench, sizes: Sizes, overlap: int) -> int:
    """Steps of the longest stream that is checked: as many of those in ``sizes`` as the module runs in one piece."""
    least = SHORT_STREAM + overlap
    known = dict.fromkeys(max(steps, least) for steps in sizes.streams)
    possible = (steps for steps in known if not bench.reference.failure(bench.draw(1, steps)))
    return next(possible, least)


def pushed(bench: Bench, model: Model, tensors: Sequence[Tensor], chunks: Sequence[int]) -> list[Array]:
    """What one stream answers to ``chunks`` of steps, joined."""
    parts, start = [], 0
    with model.stream() as stream:
        for size in chunks:
            parts.append(outputs_of(model, stream.push(**bench.chunk(tensors, start, size))))
            start += size
    return bench.join(model, parts)


def _chunked(bench: Bench, model: Model, tensors: list[Tensor], chunkings: Sequence[Sequence[int]]) -> Iterator[Case]:
    # A push of no steps has no answer where an output is one value for the whole chunk.
    timed = all(port.time_axis is not None for port in model.signature.outputs)
    for chunks in [tuple(c for c in whole_chunks(model, chunks) if c or timed) for chunks in chunkings]:
        question = Question("stream", 1, sum(chunks), tensors, f"chunks {_short(chunks)}")
        yield bench.judge(question, model, pushed(bench, model, tensors, chunks))


def _together(bench: Bench, model: Model) -> Iterator[Case]:
    """Streams that move in one call keep apart: a model that mixes or reorders the rows of its batch does not."""
    overlap = model.signature.overlap
    steps = _whole(model, SHORT_STREAM + overlap)
    tensors = bench.draw(len(TOGETHER), steps)
    rows = [bench.cut(tensors, row, steps) for row in range(len(TOGETHER))]
    parts: list[list[list[Array]]] = [[] for _ in TOGETHER]
    streams = [model.stream() for _ in TOGETHER]
    starts = [0] * len(TOGETHER)
    # A file without lengths takes chunks of one size in one call, and others one after the other.
    together: Sequence[tuple[int, ...]] = (
        TOGETHER if model.signature.lengths is not None else TOGETHER[1:] * len(TOGETHER)
    )
    if overlap:  # nothing answers yet, in one stream longer than in the other
        together = [(overlap - i, chunks[0] + i, *chunks[1:]) for i, chunks in enumerate(together)]
    for turn, sizes in enumerate(zip(*(whole_chunks(model, chunks) for chunks in together), strict=True)):
        chunks = [bench.chunk(row, start, size) for row, start, size in zip(rows, starts, sizes, strict=True)]
        way = -1 if turn % 2 else 1  # a stream is another row the next time: its states are to follow it
        results = model.push_many(streams[::way], chunks[::way])[::way]
        for answers, result in zip(parts, results, strict=True):
            answers.append(outputs_of(model, result))
        starts = [start + size for start, size in zip(starts, sizes, strict=True)]
    for row, answers in enumerate(parts):
        detail = f"{TOGETHER_DETAIL}, row {row} of {len(TOGETHER)}, chunks {list(together[row])}"
        yield bench.judge(Question("stream", 1, steps, rows[row], detail), model, bench.join(model, answers))


def whole_chunks(model: Model, chunks: Sequence[int]) -> tuple[int, ...]:
    """``chunks``, and one more if it takes that to make whole strides: only these are answered."""
    rest = _whole(model, sum(chunks)) - sum(chunks)
    return (*chunks, rest) if rest else tuple(chunks)


def _whole(model: Model, steps: int) -> int:
    stride, overlap = model.signature.stride, model.signature.overlap
    return overlap + -(-max(steps - overlap, 1) // stride) * stride


def _short(chunks: Sequence[int]) -> str:
    if len(set(chunks)) == 1 and len(chunks) > 3:
        return f"{len(chunks)} of {chunks[0]}"
    if len(chunks) > 6 and len(set(chunks[:-1])) == 1:
        return f"{len(chunks) - 1} of {chunks[0]} and {chunks[-1]}"
    return str(list(chunks))
