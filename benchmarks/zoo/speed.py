"""Modern recurrences, one step and whole, against their own packages in torch: ``python -m benchmarks.zoo.speed [KEY ...]``.

Runs in the zoo's environment (scripts/zoo makes it); the table goes to benchmarks/results/KIND/modern.md.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import onnxruntime
import torch

from benchmarks.__main__ import HERE, kind
from benchmarks.measure import Table, Timing, micro, percent, ratio, timings
from benchmarks.zoo.stepping import one_step
from benchmarks.zoo.subject import ENTRIES, Subject
from rnncore.export import export
from rnncore.runtime import Model, load

KEYS = (
    "minGRU-pytorch.minGRU",
    "ncps.CfC",
    "transformers.MambaForCausalLM",
    "transformers.RecurrentGemma RG-LRU",
    "transformers.RecurrentGemmaForCausalLM",
    "transformers.xLSTMForCausalLM",
    "xlstm.mLSTMLayer",
    "xlstm.sLSTMLayer",
    "transformers.RwkvForCausalLM",
    "transformers.Mamba2ForCausalLM",
    "ncps.LTC",
)
STEPS = 128
OTHERS = (16, 512)
NOTE = (
    "The package's own class with random weights, of the zoo's small sizes, in torch's inference mode, and its exported file; "
    "one row, one thread, µs a step, medians of interleaved runs, equally many calls of each. "
    f"Whole: {STEPS} steps in one call, and how many times as long torch takes at {OTHERS[0]} and {OTHERS[1]} steps (the "
    "mLSTM of xlstm is made for 128). Step: `push` of one step by name, against one step in torch, the state "
    "carried by both; the xLSTM of transformers has none there, as the cache that it makes has other sizes than it wants."
)


def run(keys: tuple[str, ...]) -> Table:
    """The table of ``keys``, entries of the zoo that stream."""
    torch.set_num_threads(1)
    rows = []
    for key in keys:
        torch.manual_seed(0)
        rows.append((key, *_row(key, ENTRIES[key].make())))
        print(*rows[-1], flush=True)
    others = (f"torch/run at {steps}" for steps in OTHERS)
    header = ("class", "push", "torch step", "torch/push", "run", "torch whole", "torch/run", *others, "largest spread")
    return Table("Modern recurrences", NOTE, header, tuple(rows))


def _row(key: str, subject: Subject) -> tuple[str, ...]:
    module = subject.module.eval()
    tensors = _drawn(subject, STEPS)
    with torch.no_grad():
        module(*tensors)  # RWKV scales its weights in its first call
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        with torch.inference_mode(False):
            path = Path(folder) / "model.onnx"
            export(module, path, subject.draw(*subject.sizes[0]), streaming=True, **subject.options)
        model = load(path)
        arrays = [tensor.numpy() for tensor in tensors]
        chunk = {name: array[0, 1:2] for name, array in zip(model.inputs, arrays, strict=True)}
        stream, step = model.stream(), one_step(key, module, tensors)
        one = timings({"push": lambda: stream.push(**chunk), "torch": step}, cold=False)
        whole = _whole(model, module, tensors)
        others = [_whole(model, module, _drawn(subject, steps)) for steps in OTHERS]
    found = [micro(one["push"].warm), micro(one["torch"].warm), ratio(one["torch"].warm, one["push"].warm)]
    found += [micro(whole["run"].warm, STEPS), micro(whole["torch"].warm, STEPS)]
    found += [ratio(own["torch"].warm, own["run"].warm) if own else "–" for own in (whole, *others)]
    return (*found, percent(max(timing.spread for own in (one, whole, *others) for timing in own.values())))


def _drawn(subject: Subject, steps: int) -> tuple[torch.Tensor, ...]:
    drawn = subject.draw(1, steps)
    return drawn if isinstance(drawn, tuple) else (drawn,)


def _whole(model: Model, module: torch.nn.Module, tensors: tuple[torch.Tensor, ...]) -> dict[str, Timing]:
    """The file against the module; nothing if that takes no sequence of this length."""
    try:
        module(*tensors)
    except RuntimeError:
        return {}
    arrays = [tensor.numpy() for tensor in tensors]
    return timings({"run": lambda: model.run(*arrays), "torch": lambda: module(*tensors)}, cold=False)


def main(arguments: list[str]) -> int:
    """Write the table."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in ("series", "modern"):  # the former keeps torchvision's operators away
        importlib.import_module(f"benchmarks.zoo.{name}")
    versions = f"torch {torch.__version__.split('+')[0]}, onnxruntime {onnxruntime.__version__}, {kind()}"
    text = f"{run(tuple(arguments) or KEYS).markdown()}\n{versions}.\n"
    (HERE / "results" / kind() / "modern.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
