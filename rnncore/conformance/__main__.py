"""``python -m rnncore.conformance``: measure the conformance table anew and write docs/conformance.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rnncore.runtime.errors import MissingExtraError


def main() -> None:
    """Takes a few minutes of one core."""
    parser = argparse.ArgumentParser(prog="python -m rnncore.conformance", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/conformance.md"), help="file to write")
    parser.add_argument("--models", nargs="+", help="these whole models only; all other rows stay as the file has them")
    arguments = parser.parse_args()
    out = arguments.out
    try:
        import torch

        from rnncore.conformance.measuring import measure
        from rnncore.conformance.models import MODELS, measure_models
        from rnncore.conformance.table import page, parse, parse_models
    except ModuleNotFoundError as error:
        sys.exit(f"error: {MissingExtraError(str(error.name), 'export', 'the conformance table')}")
    torch.set_num_threads(1)
    if arguments.models:
        former = out.read_text(encoding="utf-8")
        rows, models = parse(former), [row for row in parse_models(former) if row.model not in arguments.models]
    else:
        rows, models = [], []
        for row in measure():
            rows.append(row)
            print(f"{len(rows)} {row.cell}, {row.direction}, {row.form}, lengths {row.lengths}", file=sys.stderr)
    for found in measure_models(models=arguments.models or tuple(MODELS)):
        models.append(found)
        print(f"{found.model}, {found.form}", file=sys.stderr)
    models.sort(key=lambda row: list(MODELS).index(row.model))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(rows, models), encoding="utf-8")
    print(f"{out}: {len(rows) + len(models)} files on {len(rows[0].results)} programs")


if __name__ == "__main__":
    main()
