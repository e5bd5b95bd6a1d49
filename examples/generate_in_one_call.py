"""Write texts with numpy and onnxruntime alone, one call for all of them: python examples/generate_in_one_call.py

This process never imports rnncore: it is what a host in C++, JavaScript or Java does.  The generator file is made by
another process, from a streaming file (``--model``, such as one of ``rnncore train``; a small random one by default).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

MAKE = """
import sys
from pathlib import Path
from rnncore.export import export_generator
from small_model import small_model
print(export_generator(small_model(Path(sys.argv[1])), sys.argv[2]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/small.onnx"))
    parser.add_argument("--generator", type=Path, default=Path("runs/generator.onnx"))
    parser.add_argument("--prefix", nargs="*", default=["The ", "", "A recurrent network "], help="one text for each")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not arguments.generator.exists():
        files = [str(arguments.model.resolve()), str(arguments.generator.resolve())]
        subprocess.run([sys.executable, "-c", MAKE, *files], cwd=Path(__file__).parent, check=True)

    session = onnxruntime.InferenceSession(arguments.generator, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    tokenizer = json.loads(metadata["rnncore.tokenizer"])
    ids: dict[str, int] = tokenizer["model"]["vocab"]  # of single characters here
    characters = {number: character for character, number in ids.items()}

    rows = [[ids[character] for character in text] for text in arguments.prefix]
    prefix = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for padded, row in zip(prefix, rows, strict=True):
        padded[: len(row)] = row
    defaults = {option["name"]: option["default"] for option in json.loads(metadata["rnncore.signature"])["options"]}
    defaults["temperature"] = arguments.temperature
    dtypes = {"tensor(int64)": np.int64, "tensor(double)": np.float64}
    feeds = {
        value.name: np.full(len(rows), defaults[value.name], dtypes[value.type])
        for value in session.get_inputs()
        if value.name in defaults
    }
    feeds |= {
        "prefix": prefix,
        "lengths": np.array([len(row) for row in rows]),
        "uniforms": np.random.default_rng(arguments.seed).random((len(rows), arguments.tokens)),
    }
    start = time.perf_counter()
    written, lengths, log_probs = session.run(["ids", "ids_lengths", "log_probs"], feeds)
    took = time.perf_counter() - start
    for text, row, length, own in zip(arguments.prefix, written, lengths, log_probs, strict=True):
        print(
            f"{text!r} -> {''.join(characters[i] for i in row[:length].tolist())!r} (log-probability {own.sum():.1f})"
        )
    steps, count = written.shape[1], int(lengths.sum())
    assert "rnncore" not in sys.modules and "torch" not in sys.modules
    print(f"{count} tokens in {steps} steps of one call, {took * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
