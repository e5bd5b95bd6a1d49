"""Start the token service, load it with more and more clients, and plot its latency: python examples/load_generator.py

Needs ``pip install 'rnncore[examples]'``.  Everything stays on this machine and ends by itself: the number of clients is
bounded, each round lasts ``--seconds``, and the service that was started is stopped.  Every answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
from small_model import small_model
from websockets.asyncio.client import connect

from rnncore.runtime import LanguageModel

matplotlib.use("Agg")
from matplotlib import pyplot

TEXT = "the quick brown fox jumps over the lazy dog "
MAX_CLIENTS = 256
TOLERANCE = 1e-3


async def client(url: str, text: str, expected: list[float], until: float, pause_s: float) -> list[float]:
    """Send ``text`` again and again, a character a message; returns the seconds that each answer took."""
    latencies: list[float] = []
    while time.monotonic() < until:
        async with connect(url) as socket:
            for character, log_prob in zip(text, expected, strict=True):
                start = time.perf_counter()
                await socket.send(character)
                (answer,) = json.loads(await socket.recv())["log_probs"]
                latencies.append(time.perf_counter() - start)
                if abs(answer - log_prob) > TOLERANCE:
                    raise SystemExit(f"the service says {answer}, the model alone says {log_prob}")
                await asyncio.sleep(pause_s)
    return latencies


async def load(url: str, model: LanguageModel, clients: int, seconds: float, pause_s: float) -> np.ndarray:
    """Milliseconds of every answer while ``clients`` type at the same time, each another text."""
    texts = [TEXT[i % len(TEXT) :] + TEXT[: i % len(TEXT)] for i in range(clients)]
    expected = [[score.log_prob for score in model.token_scores(text)] for text in texts]
    until = time.monotonic() + seconds
    tasks = [client(url, text, own, until, pause_s) for text, own in zip(texts, expected, strict=True)]
    parts = await asyncio.wait_for(asyncio.gather(*tasks), 10 * seconds + 60)
    return np.concatenate(parts) * 1e3


def plot(results: dict[int, np.ndarray], path: Path) -> None:
    figure, axes = pyplot.subplots(layout="constrained")
    for percent in (50, 90, 99):
        axes.plot(list(results), [np.percentile(ms, percent) for ms in results.values()], "o-", label=f"p{percent}")
    axes.set(xscale="log", yscale="log", xlabel="clients", ylabel="latency of one character, ms", title="Token service")
    axes.set_xticks(list(results), [str(clients) for clients in results], minor=False)
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/small.onnx"), help="a file of `rnncore train`")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64], help=f"at most {MAX_CLIENTS} each")
    parser.add_argument("--seconds", type=float, default=3, help="length of each round")
    parser.add_argument("--pause-ms", type=float, default=20, help="what a client waits before its next character")
    parser.add_argument("--out", type=Path, default=Path("runs/latency.png"), help="the plot")
    arguments = parser.parse_args()
    rounds = [min(max(n, 1), MAX_CLIENTS) for n in arguments.clients]
    model = LanguageModel.load(small_model(arguments.model))
    longest_s = len(rounds) * (10 * arguments.seconds + 60)  # the service ends then even if this program is killed
    command = [sys.executable, str(Path(__file__).with_name("token_service.py"))]
    command += ["--model", str(arguments.model), "--seconds", str(longest_s)]
    results: dict[int, np.ndarray] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            url = service.stdout.readline().strip()
            if not url:
                raise SystemExit("the service did not start")
            for clients in rounds:
                ms = asyncio.run(load(url, model, clients, arguments.seconds, arguments.pause_ms / 1e3))
                results[clients] = ms
                p50, p90, p99 = np.percentile(ms, (50, 90, 99))
                print(
                    f"{clients:4} clients: {len(ms):6} answers, all right; p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f} ms"
                )
        finally:
            service.terminate()
    plot(results, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
