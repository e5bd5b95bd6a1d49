"""Steps that code pads or cuts off at some lengths only, up to a multiple."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rnncore.export.tracing.rolling.fitting import fit
from tests.export.rolled import TOLERANCE, exported, rolled

WIDTH = 2


class Blocks(nn.Module):
    """Joins ``multiple`` steps to one, after what ``spelling`` does to a rest; ``loop``: they run through a loop by hand.

    tall: the steps are cut apart and put together again, and a rest is cut off behind.
    """

    def __init__(self, spelling: str, multiple: int, *, loop: bool = False, tall: bool = False) -> None:
        super().__init__()
        self.spelling, self.multiple, self.loop, self.tall = spelling, multiple, loop, tall
        width = WIDTH if tall else WIDTH * multiple
        self.cell, self.layer = nn.GRUCell(width, 3), nn.GRU(width, 3, batch_first=True)

    def _whole(self, x: Tensor) -> Tensor:
        rest = x.size(1) % self.multiple
        more = self.multiple - rest
        match self.spelling:
            case "cut" if rest:
                return x[:, : x.size(1) - rest].contiguous()
            case "cut by minus" if rest:
                return x[:, :-rest]
            case "pad" if rest:
                return F.pad(x, (0, 0, 0, more))
            case "zeros" if rest > 0:
                return torch.cat([x, x.new_zeros(x.size(0), more, WIDTH)], 1)
            case "ones" if rest != 0:
                return torch.cat((x, torch.ones(x.size(0), more, WIDTH)), dim=1)
        return x

    def forward(self, x: Tensor) -> Tensor:
        steps, x = x.size(1), self._whole(x)
        if self.tall:
            y = self.layer(x.reshape(-1, self.multiple, WIDTH))[0]
            return y.reshape(x.size(0), -1, 3)[:, :steps]
        x = x.reshape(x.size(0), x.size(1) // self.multiple, -1)
        if not self.loop:
            return self.layer(x)[0]
        h, found = x.new_zeros(x.size(0), 3), []
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            found.append(h)
        return torch.stack(found, 1)


@given(
    st.sampled_from(["cut", "cut by minus", "pad", "zeros", "ones"]), st.integers(2, 4), st.booleans(), st.booleans()
)
@example("ones", 4, True, False)
@settings(phases=[Phase.explicit, Phase.generate, Phase.target], deadline=None, max_examples=12)
def test_a_rest_is_padded_or_cut_off_at_any_length(spelling: str, multiple: int, loop: bool, tall: bool) -> None:
    torch.manual_seed(0)
    tall &= not spelling.startswith("cut")  # what is cut off comes back at no length: the file takes multiples
    module = Blocks(spelling, multiple, loop=loop, tall=tall)
    program = rolled(module, torch.randn(2, 3 * multiple, WIDTH))
    assert program is not None
    for batch, time in ((1, multiple), (3, 17), (2, 18), (3, 19), (2, 20)):
        x = torch.randn(batch, time, WIDTH)
        (got,) = program(x).values()
        torch.testing.assert_close(got, module(x), **TOLERANCE)


class Pyramid(nn.Module):
    """Halves the steps in every layer, and drops an odd one."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (2 * WIDTH, 12)
        self.layers = nn.ModuleList(nn.LSTM(n, 3, batch_first=True, bidirectional=True) for n in sizes)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if x.size(1) % 2 == 1:
                x = x[:, :-1, :]
            x, _ = layer(x.contiguous().view(x.size(0), x.size(1) // 2, 2 * x.size(2)))
        return x


MAKERS = {"pyramid": Pyramid, "pad": lambda: Blocks("pad", 4), "cut": lambda: Blocks("cut", 3, loop=True)}


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_they_are_exported(make: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = ((1, 4), (2, 13), (3, 22), (1, 23))
    exported(make(), tmp_path, torch.randn(2, 12, WIDTH), lambda b, t: torch.randn(b, t, WIDTH), sizes)


def test_a_number_follows_the_fewest_axes() -> None:
    points = [{"batch": b, "time": t} for b, t in ((3, 6), (3, 7), (3, 8), (3, 9), (4, 6), (4, 7), (5, 12))]
    found = fit([4 * ((point["time"] + 3) // 4) for point in points], points)
    assert found is not None and found.axes == {"time"} and found({"batch": 2, "time": 9}) == 12
