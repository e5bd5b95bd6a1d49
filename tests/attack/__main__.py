"""Attack the product and count: ``python -m tests.attack [NAME ...] [--amount N]``; ``scripts/attack`` is this command.

Every harness runs in a process of its own, which may be killed by what it does; that is a finding too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith(("__", "test_")))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/attack", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all of them by default")
    parser.add_argument("--amount", type=int, default=10, help="how much work; 1 takes seconds for each")
    parser.add_argument("--limit-s", type=float, default=3600, help="a harness that takes longer hangs")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no harness {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    if arguments.inside:
        print(json.dumps(importlib.import_module(f"tests.attack.{arguments.names[0]}").run(arguments.amount)))
        return 0
    failed = [name for name in arguments.names or NAMES if not attack(name, arguments.amount, arguments.limit_s)]
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


def attack(name: str, amount: int, limit_s: float) -> bool:
    """Run one harness, print a line of counts; False if something did not hold."""
    command = [sys.executable, "-m", "tests.attack", name, "--amount", str(amount), "--inside"]
    start = time.monotonic()
    try:
        done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        print(f"{name}: hangs, no end after {limit_s:g} s", flush=True)
        return False
    took = time.monotonic() - start
    if done.returncode or not done.stdout:
        print(f"{name}: exit {done.returncode} after {took:.0f} s\n{done.stdout}{done.stderr}", flush=True)
        return False
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}; {took:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
