"""Run the ready ONNX file of silero-vad as streams, many at once: python examples/port_silero_vad.py

The file is not one of ours.  It takes 512 samples a call, wants to see the last 64 of the call before again, and has its
state [2, batch, 128] as an input and an output.  Said once to ``load``, it streams, forks, saves, restores and batches
like any other model.  The probabilities of speech are compared with those of the package's own way of calling it.
"""

from __future__ import annotations

import argparse
import asyncio
import wave
from pathlib import Path

import numpy as np
import onnxruntime
from datasets import debian_package, pip_package
from timing import side_by_side

from rnncore.runtime import Model, Pool, load

RATE, CHUNK, CONTEXT = 16_000, 512, 64


def theirs(session: onnxruntime.InferenceSession, samples: np.ndarray) -> np.ndarray:
    """What ``silero_vad.utils_vad.OnnxWrapper`` does for one recording, with NumPy where it uses PyTorch."""
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, CONTEXT), np.float32)
    answers = []
    for at in range(0, len(samples), CHUNK):
        x = np.concatenate([context, samples[None, at : at + CHUNK]], axis=1)
        answer, state = session.run(None, {"input": x, "state": state, "sr": np.array(RATE, np.int64)})
        context = x[:, -CONTEXT:]
        answers.append(answer[0, 0])
    return np.array(answers)


def ours(model: Model, samples: np.ndarray) -> np.ndarray:
    """As it comes from a microphone: a chunk a push."""
    with model.stream() as stream:
        return np.array([stream.push(samples[at : at + CHUNK])[0, 0] for at in range(0, len(samples), CHUNK)])


def together(model: Model, recordings: list[np.ndarray]) -> list[np.ndarray]:
    """All recordings at the same time, each a stream of its own, a chunk of every one in each call."""
    streams = [model.stream() for _ in recordings]
    answers: list[list[float]] = [[] for _ in recordings]
    for at in range(0, max(map(len, recordings)), CHUNK):
        live = [i for i, own in enumerate(recordings) if at < len(own)]
        chunks = [recordings[i][at : at + CHUNK] for i in live]
        for i, answer in zip(live, model.push_many([streams[i] for i in live], chunks), strict=True):
            answers[i].append(answer[0, 0])
    return [np.array(own) for own in answers]


def pooled(model: Model, recordings: list[np.ndarray]) -> list[np.ndarray]:
    """Each recording on its own, as clients of a service would send it; the pool makes batches of what is there."""

    async def client(pool: Pool, samples: np.ndarray) -> np.ndarray:
        with pool.open() as stream:
            chunks = samples.reshape(-1, CHUNK)
            return np.array([(await stream.apush(chunk))[0, 0] for chunk in chunks])

    async def serve() -> list[np.ndarray]:
        async with model.pool(max_batch=len(recordings)) as pool:
            return await asyncio.gather(*(client(pool, samples) for samples in recordings))

    return asyncio.run(serve())


def read_wave(path: Path) -> np.ndarray:
    with wave.open(str(path)) as sound:
        if (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) != (RATE, 1, 2):
            raise SystemExit(f"{path}: expected 16 kHz, mono, 16 bit")
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 2**15
    return samples[: len(samples) // CHUNK * CHUNK]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package-folder", type=Path, help="folder that holds silero_vad; else through pip")
    parser.add_argument("--wav", type=Path, nargs="+", help="recordings of 16 kHz; else some of LibriVox, through apt")
    parser.add_argument("--streams", type=int, default=32, help="how many at once")
    arguments = parser.parse_args()
    folder = arguments.package_folder or pip_package("silero_vad", "6.2.3")
    path = folder / "silero_vad" / "data" / "silero_vad.onnx"
    model = load(path, states={"state": "stateN"}, constants={"sr": RATE}, chunk=CHUNK, context=CONTEXT)
    print(model)
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    speech = "usr/share/pocketsphinx/test/data/librivox"
    waves = arguments.wav or sorted((debian_package("pocketsphinx-testdata") / speech).glob("*.wav"))
    recordings = [read_wave(path) for path in waves]
    expected = [theirs(session, samples) for samples in recordings]
    for path, samples, probabilities in zip(waves, recordings, expected, strict=True):
        print(f"{path.name}: {len(samples) / RATE:.1f} s, speech in {(probabilities > 0.5).mean():.0%} of it")
    one, many = [ours(model, samples) for samples in recordings], together(model, recordings)
    for name, got in (("one after the other", one), ("all at once", many), ("in a pool", pooled(model, recordings))):
        worst = max(np.abs(a - b).max() for a, b in zip(got, expected, strict=True))
        print(f"largest difference to the package's own calls, {name}: {worst:.1e}")
        assert worst < 1e-5, "the probabilities are not those of the package"

    second = recordings[0][: RATE // CHUNK * CHUNK]
    copies = [np.roll(second, 100 * i) for i in range(arguments.streams)]
    chunks = len(copies) * len(second) // CHUNK
    print(f"speed, {len(copies)} recordings of one second:")
    side_by_side(
        {
            "their calls, one recording after another": lambda: [theirs(session, own) for own in copies],
            "our streams, one after another": lambda: [ours(model, own) for own in copies],
            "our streams, all at once": lambda: together(model, copies),
            "our streams, each by itself in a pool": lambda: pooled(model, copies),
        },
        chunks,
        "chunk",
    )


if __name__ == "__main__":
    main()
