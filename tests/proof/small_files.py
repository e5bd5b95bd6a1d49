"""Small files written by hand, and what they are files of: verification without an export, in a hundredth of the time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import onnx
import torch
from onnx import parser
from torch import Tensor, nn

from rnncore.export.tracing.example import Example
from rnncore.export.tracing.size_limits import SizeLimits
from rnncore.export.verification.cases import Verdict
from rnncore.export.verification.golden import GoldenRecorder
from rnncore.export.verification.judging import Judge
from rnncore.export.verification.reference import Reference
from rnncore.export.verification.verifier import Verifier
from rnncore.runtime.format.axes import Axis
from rnncore.runtime.format.signature import GatherOutput, Signature, StateSpec, TensorSpec
from tests.runtime.files import finish

FEATURES = 3
X = torch.randn(2, 6, FEATURES, generator=torch.Generator().manual_seed(1))


class Sum(nn.Module):
    """y_t = x_1 + ... + x_t; what is left out of that makes other modules."""

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x.cumsum(1))

    def after(self, y: Tensor) -> Tensor:
        return y


class Totals(nn.Module):
    """y_t = x_1 + ... + x_length at every t, by lengths that the module takes itself."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        inside = torch.arange(x.shape[1])[None] < lengths[:, None]
        return (x * inside[:, :, None]).sum(1, keepdim=True).expand_as(x)


@dataclass(frozen=True)
class File:
    """The sum over time as a file.

    y: how the output is made of ``sum``.  end: the sum after the chunk, of that before and ``total``.  pick: what asking by
    index gives, empty for a file that cannot be asked.  axes: limits in the signature.  heeds: whether what lies beyond the
    lengths counts nothing.
    """

    y: str = "y = Identity (sum)"
    end: str = "s_next = Add (s, total)"
    lengths: bool = True
    causal: bool = True
    pick: str = ""
    axes: tuple[Axis, ...] = ()
    heeds: bool = True

    def written(self, path: Path) -> Path:
        """The file, at ``path``."""
        path.write_bytes(finish(self._graph(), self._signature()))
        return path

    def _graph(self) -> onnx.GraphProto:
        width = f"float[batch, time, {FEATURES}]"
        inputs = [f"{width} x", *["float[batch, 3] s"] * self.causal, *["int64[batch] lengths"] * self.lengths]
        outputs = [f"{width} y", *["float[batch, 3] s_next"] * self.causal]
        if self.pick:
            inputs.append("int64[batch, time, picks] y_at")
            outputs.append("float[batch, time, picks] y_pick")
        mask = """
            steps_1 = Shape <start = 1, end = 2> (x)  steps = Squeeze (steps_1)  ts = Range (zero, steps, one)
            column = Unsqueeze (lengths, ones)  inside = Less (ts, column)  valid = Unsqueeze (inside, twos)
            own = Where (valid, x, nought)"""
        return parser.parse_graph(f"""
            sums ({", ".join(inputs)}) => ({", ".join(outputs)})
            <int64 zero = {{0}}, int64 one = {{1}}, int64[1] ones = {{1}}, int64[1] twos = {{2}}, float nought = {{0.0}},
             float small = {{0.125}}, float three = {{3.0}}, int64[1] zeros = {{0}}>
            {{
                {mask if self.lengths and self.heeds else "own = Identity (x)"}
                inner = CumSum (own, one)
                {"before = Unsqueeze (s, ones)  sum = Add (inner, before)" if self.causal else "sum = Identity (inner)"}
                total = ReduceSum <keepdims = 0> (own, ones)
                {self.y}
                {self.end if self.causal else ""}
                {self.pick}
            }}""")

    def _signature(self) -> Signature:
        shape = ("batch", "time", FEATURES)
        return Signature(
            (TensorSpec("x", "float32", shape),),
            (TensorSpec("y", "float32", shape),),
            TensorSpec("lengths", "int64", ("batch",)) if self.lengths else None,
            (StateSpec("s", "s_next", "float32", FEATURES),) if self.causal else (),
            self.causal,
            "" if self.causal else "the test says so",
            GatherOutput("y", "y_at", "y_pick") if self.pick else None,
            self.axes,
        )


def verified(
    file: File, module: nn.Module, folder: Path, limits: SizeLimits | None = None, example: Any = X
) -> Verdict:
    """What verification says of the file."""
    return _verifier(Verifier, module, limits, example).verify(file.written(folder / "m.onnx"))


def recorder(module: nn.Module, limits: SizeLimits | None = None, example: Any = X) -> GoldenRecorder:
    """What records golden cases of ``module``."""
    return _verifier(GoldenRecorder, module, limits, example)


V = TypeVar("V", bound=Verifier)


def _verifier(kind: type[V], module: nn.Module, limits: SizeLimits | None = None, example: Any = X) -> V:
    read = Example.of(module.eval(), example, None, "auto" if isinstance(example, tuple) else False)
    return kind(Reference(module, read), read, Judge.of("float32"), 3, limits)
