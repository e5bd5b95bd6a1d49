"""What the caller's process has set is afterwards as it was, and during an export as an export needs it."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from rnncore.export import export
from rnncore.export.tracing.surroundings import in_turn, undisturbed
from rnncore.runtime.errors import ExportError


@pytest.fixture(autouse=True)
def several_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Counts(nn.Module):
    """Tells on how many threads it was asked; fails where it is told to."""

    threads: ClassVar[set[int]] = set()

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.layer, self.fails = nn.GRU(3, 4, batch_first=True), fails

    def forward(self, x: Tensor) -> Tensor:
        self.threads.add(torch.get_num_threads())
        if self.fails:
            raise ValueError("told to")
        return self.layer(x)[0]


@pytest.mark.parametrize("fails", [False, True])
def test_a_small_module_is_asked_on_one_thread(fails: bool, tmp_path: Path) -> None:
    module = Counts(fails).eval()
    module.threads.clear()
    if fails:
        with pytest.raises(ExportError, match="told to"):
            export(module, tmp_path / "m.onnx", torch.randn(2, 5, 3))
    else:
        export(module, tmp_path / "m.onnx", torch.randn(2, 5, 3))
    assert module.threads == {1}
    assert torch.get_num_threads() == 3


def test_a_large_one_on_all() -> None:
    with undisturbed(nn.Linear(1 << 11, 1 << 11, bias=False)):
        assert torch.get_num_threads() == 3
    with undisturbed(nn.Sequential(nn.LazyLinear(3), nn.Linear(1 << 11, (1 << 11) - 1, bias=False))):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_an_export_within_an_export_gives_nothing_back_too_early() -> None:
    with undisturbed(nn.Linear(2, 2)):
        with undisturbed(nn.Linear(2, 2)):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_autocast_of_the_caller_is_off_inside_and_on_again_after() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with undisturbed(nn.Linear(2, 2)):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


@pytest.fixture
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    gc.set_threshold(700, 11, 12)
    yield gc.get_threshold()
    gc.set_threshold(*before)


def test_garbage_is_seldom_collected_for_a_small_module_and_then_as_before(thresholds: tuple[int, int, int]) -> None:
    with undisturbed(nn.Linear(2, 2)):
        with undisturbed(nn.Linear(2, 2)):
            assert gc.get_threshold() == (10_000, *thresholds[1:])
        assert gc.get_threshold() == (10_000, *thresholds[1:])
    assert gc.get_threshold() == thresholds
    with undisturbed(nn.Linear(1 << 11, 1 << 11, bias=False)):
        assert gc.get_threshold() == thresholds


@pytest.mark.parametrize("own", [(0, 10, 10), (50_000, 3, 3)])
def test_who_collects_less_or_never_keeps_to_it(own: tuple[int, int, int], thresholds: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    with undisturbed(nn.Linear(2, 2)):
        assert gc.get_threshold() == own
    assert gc.get_threshold() == own


def test_what_is_set_in_the_meantime_stays(thresholds: tuple[int, int, int]) -> None:
    with undisturbed(nn.Linear(2, 2)):
        gc.set_threshold(900, 9, 9)
    assert gc.get_threshold() == (900, 9, 9)


class Spelled(nn.Module):
    """Asks for the very type of a tensor, which is patched while it is traced; or loops, which are rolled."""

    def __init__(self, loop: bool) -> None:
        super().__init__()
        self.cell, self.layer, self.loop = nn.GRUCell(3, 4), nn.GRU(3, 4, batch_first=True), loop

    def forward(self, x: Tensor) -> Tensor:
        if not self.loop:
            return self.layer(2 * x if type(x) is torch.Tensor else x)[0]
        h, steps = x.new_zeros(len(x), 4), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            steps.append(h)
        return torch.stack(steps, 1)


def test_exports_of_several_threads_do_not_meet(tmp_path: Path) -> None:
    """torch keeps what it traces in globals."""

    def exported(number: int) -> str:
        return str(export(Spelled(number % 2 == 0), tmp_path / f"{number}.onnx", torch.randn(2, 5, 3)))

    with ThreadPoolExecutor(4) as executor:
        reports = list(executor.map(exported, range(8)))
    assert all("streams" in report for report in reports)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_wait_for_threads_that_it_has_not() -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with in_turn():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        with in_turn():
            os._exit(0)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
