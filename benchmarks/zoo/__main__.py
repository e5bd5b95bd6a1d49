"""Run the zoo in the environment that ``scripts/zoo`` makes, and write its page.

scripts/zoo                         # everything
scripts/zoo demucs ncps.CfC         # packages or classes; the others keep what was found before
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.zoo.child import run
from benchmarks.zoo.page import write_page
from benchmarks.zoo.subject import ENTRIES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "zoo.json"
MODULES = ("speech", "series", "modern", "text", "decisions", "spiking", "others")
MOST_SECONDS = 600


def main() -> int:
    """Run what is asked for; 1 if anything is wrong or crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="packages, or classes as PACKAGE.NAME")
    names = parser.parse_args().names
    torch.set_num_threads(1)
    for module in MODULES:
        importlib.import_module(f"benchmarks.zoo.{module}")
    chosen = [key for key, own in ENTRIES.items() if not names or key in names or own.package in names]
    bad = False
    for key in chosen:
        found = _one(key)
        bad |= found["state"] in ("wrong", "crashed")
        print(f"{found['state']:9} {key}: {found.get('why', '')[:160]}", flush=True)
        _store(key, found)
    return bad


def _store(key: str, found: dict[str, Any]) -> None:
    """Keep one result, beside those of other runs, and write the page anew."""
    stored: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    stored[key] = found
    ordered = {key: stored[key] for key in ENTRIES if key in stored}
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
    write_page(ordered, ROOT / "docs" / "zoo.md")


def _one(key: str) -> dict[str, Any]:
    """A process of its own, forked from this one, which has imported what takes long."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(theirs, key))
    process.start()
    theirs.close()
    found: dict[str, Any]
    try:
        if ours.poll(MOST_SECONDS):
            found = ours.recv()
        else:
            found = {"state": "crashed", "why": f"no answer in {MOST_SECONDS} s"}
    except EOFError:
        process.join()
        found = {"state": "crashed", "why": f"the process ended with {process.exitcode}"}
    process.kill()
    process.join()
    return found


def _tell(pipe: Connection, key: str) -> None:
    pipe.send(run(key))
    pipe.close()


if __name__ == "__main__":
    sys.exit(main())
