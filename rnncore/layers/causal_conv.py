"""``CausalConv1d``: a convolution over time that sees the present and the past, and therefore streams."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rnncore.layers.streaming import StreamingLayer
from rnncore.runtime.counts import count_problems
from rnncore.runtime.errors import raise_all


class CausalConv1d(StreamingLayer):
    """Convolution over time whose output at t sees the inputs t - (kernel_size - 1) * dilation, ..., t - dilation, t.

    ::

        y<t> = bias + sum over k of  weight[:, :, k] x<t - (kernel_size - 1 - k) * dilation>,   x<t> = 0 for t < 0

    which is ``torch.nn.Conv1d`` after padding (kernel_size - 1) * dilation zeros on the left.  Parameters have its names and
    shapes, so its state dict loads.  Unlike it, the layer is batch first, [batch, time, features], and is called like
    every layer of rnncore: ``y, state = layer(x, state=None, lengths=None)``.

    ========= ===================================================
    parameter shape
    ========= ===================================================
    weight    [out_channels, in_channels / groups, kernel_size]
    bias      [out_channels], absent with bias=False
    ========= ===================================================

    The state is ``(context,)``, the last (kernel_size - 1) * dilation valid inputs as one [batch, steps * in_channels]
    tensor, oldest step first; it is ``()`` for a kernel of 1, which looks at no other step.

    Args:
        in_channels: features of one input step.
        out_channels: features of one output step.
        kernel_size: steps that one output sees.
        dilation: distance in time between two of them.
        groups: blocks of features that do not mix; ``groups=in_channels`` is a depthwise convolution.
        bias: add a learned number to every output feature.
        stride: only 1, because each input step has one output step; drop steps afterwards with ``y[:, ::n]``.
    """

    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        stride: int = 1,
    ) -> None:
        _check_sizes(in_channels, out_channels, kernel_size, dilation, groups, stride)
        self.context = (kernel_size - 1) * dilation
        context = {"context": self.context * in_channels} if self.context else {}
        super().__init__(in_channels, out_channels, context)
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and bias from U(-1/sqrt(n), 1/sqrt(n)), n = in_channels / groups * kernel_size, as torch does."""
        bound = 1.0 / math.sqrt(self.weight.shape[1] * self.kernel_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def advance(
        self, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :meth:`StreamingLayer.advance`."""
        seen = x
        if self.context:
            seen = torch.cat((state[0].unflatten(1, (self.context, self.input_size)), x), 1)
        y = functional.conv1d(
            seen.transpose(1, 2), self.weight, self.bias, dilation=self.dilation, groups=self.groups
        ).transpose(1, 2)
        if not self.context:
            return y, ()
        if lengths is None:
            kept = seen[:, x.shape[1] :]
        else:  # the steps before each row's length; old context where the row is shorter than that
            steps = lengths.unsqueeze(1) + torch.arange(self.context, device=x.device)
            kept = seen.gather(1, steps.unsqueeze(2).expand(-1, -1, self.input_size))
        return y, (kept.flatten(1),)

    def extra_repr(self) -> str:
        """Sizes and options, as shown in ``repr``."""
        options = {"dilation": (self.dilation, 1), "groups": (self.groups, 1), "bias": (self.bias is not None, True)}
        shown = [f"{name}={value}" for name, (value, default) in options.items() if value != default]
        return ", ".join([str(self.input_size), str(self.output_size), f"kernel_size={self.kernel_size}", *shown])


def _check_sizes(
    in_channels: int, out_channels: int, kernel_size: int, dilation: int, groups: int, stride: int
) -> None:
    sizes = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel_size": kernel_size,
        "dilation": dilation,
        "groups": groups,
        "stride": stride,
    }
    problems = [problem for name, size in sizes.items() for problem in count_problems(name, size)]
    raise_all(problems)
    if stride != 1:
        problems.append(
            f"stride is {stride}, expected 1: every input step has one output step; drop steps afterwards, y[:, ::{stride}]"
        )
    for name in ("in_channels", "out_channels"):
        if sizes[name] % groups:
            problems.append(f"{name} is {sizes[name]}, expected a multiple of groups, {groups}")
    raise_all(problems)
