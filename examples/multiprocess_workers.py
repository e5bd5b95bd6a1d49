"""Rescore n-best lists in several processes that each have the model: python examples/multiprocess_workers.py --workers 2

A model is sent to a process by name: unpickled there, it opens its file again, and refuses one that has changed since.

Servers that fork their workers after loading (gunicorn --preload): load the model in the parent and open pools, streams and
anything with threads in the workers.  A worker that inherits a model opens the file again when it first uses it; a pool
that it inherits says that it belongs to another process.  Set ``TOKENIZERS_PARALLELISM=false``, since the threads of the
tokenizer do not survive a fork either.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from small_model import small_model

from rnncore.runtime import LanguageModel, Model, load

WORDS = ("the cat sat on the mat", "the cat sad on the mat", "the cat sat on a mat", "a cat sat on the mat")

_language_model: LanguageModel


def start_worker(model: Model) -> None:
    """Runs once in each worker; ``model`` has been opened there, with the options that it was loaded with."""
    global _language_model
    _language_model = LanguageModel(model)


def best(nbest: list[str]) -> tuple[int, str]:
    scores = _language_model.rescore(nbest, eos=True)
    return os.getpid(), nbest[max(range(len(nbest)), key=scores.__getitem__)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/small.onnx"), help="a file of `rnncore train`")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--utterances", type=int, default=20)
    arguments = parser.parse_args()
    model = load(small_model(arguments.model))  # one thread a process: the processes are the parallelism
    nbests = [[f"{word} {i}" for word in WORDS] for i in range(arguments.utterances)]
    spawn = multiprocessing.get_context("spawn")  # no inherited threads, sessions or locks
    with ProcessPoolExecutor(arguments.workers, spawn, initializer=start_worker, initargs=(model,)) as workers:
        answers = list(workers.map(best, nbests, chunksize=4, timeout=120))
    start_worker(model)
    same = sum(best(nbest)[1] == text for nbest, (_, text) in zip(nbests, answers, strict=True))
    print(f"{len({process for process, _ in answers})} processes rescored {len(answers)} n-best lists")
    print(f"{same} of {len(answers)} answers are those of this process")


if __name__ == "__main__":
    main()
