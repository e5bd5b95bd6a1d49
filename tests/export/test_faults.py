"""The parity check sees: every fault planted into an exported graph makes it fail, and only the fault does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest
import torch

import rnncore
from rnncore import runtime
from tests import tolerances
from tests.export.backends import assert_parity, by_push_many, by_runtime, by_streams
from tests.export.exporting import FORMS, Exported, export_forms
from tests.export.faults import CAUSAL, REVERSE, with_fault
from tests.export.modules import Network
from tests.strategies import randomize


@pytest.fixture(autouse=True)
def worst_errors_are_not_those_of_faults() -> Iterator[None]:
    before = dict(tolerances.worst)
    yield
    tolerances.worst.clear()
    tolerances.worst.update(before)


@pytest.fixture(scope="module")
def reverse(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    stack = rnncore.Bidirectional(rnncore.LSTMCell(5, 11, peephole="previous"), rnncore.GRUCell(5, 7))
    network = randomize(Network(stack, with_states=True).eval(), 5)
    return export_forms(network, tmp_path_factory.mktemp("reverse"), torch.randn(2, 4, 5))


def check(data: bytes, exported: Exported) -> None:
    """What tests.export.test_parity does with each input that it draws."""
    model, network = runtime.load(data), exported.module
    assert isinstance(network, Network)
    backends = {"runtime": by_runtime(model)}
    if model.causal:
        backends |= {"streams": by_streams(model, [1, 0, 4, 2]), "push_many": by_push_many(model, [3, 4])}
    x = np.random.default_rng(11).standard_normal((7, 7, 5))
    assert_parity(backends, network, x)
    assert_parity(backends, network, x, np.array([7, 0, 5, 1, 6, 7, 3]))


def data_of(exported: Exported, form: str) -> bytes:
    return exported.path(form).read_bytes()


def untouched(model: ir.Model) -> int:
    return 1


@pytest.mark.parametrize("form", FORMS)
def test_without_a_fault_the_check_passes(form: str, causal: Exported) -> None:
    check(with_fault(data_of(causal, form), untouched), causal)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", CAUSAL)
def test_faults_are_seen(fault: str, form: str, causal: Exported) -> None:
    broken = with_fault(data_of(causal, form), CAUSAL[fault])
    with pytest.raises(AssertionError, match=r"differences\n"):
        check(broken, causal)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_faults_of_reverse_layers_are_seen(form: str, reverse: Exported) -> None:
    check(with_fault(data_of(reverse, form), untouched), reverse)
    for fault in REVERSE.values():
        with pytest.raises(AssertionError, match=r"differences\n"):
            check(with_fault(data_of(reverse, form), fault), reverse)
