"""torch's recurrent functions, caught where a module calls them: whatever class, wrapper or hook the call comes from.

``convert`` replaces plain ``torch.nn.RNN``, ``GRU`` and ``LSTM`` by their class.  A subclass, a layer with weight norm,
spectral norm, pruning or hooks, and code that calls ``torch.lstm`` itself keep their own Python; what they end in is one
of torch's functions, which gets the weights *as values*.  So the module is run twice on other inputs, the weights of every
call are kept (they must not depend on the inputs), and while the module is traced each call is answered by rnncore's
layer with these weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from rnncore.conversion import ConvertedLayer
from rnncore.export.tracing.callers import Callers
from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.flat_packing import packer_of
from rnncore.export.tracing.packing import packing_by, packing_by_torch
from rnncore.export.tracing.passing_states import PassingStates
from rnncore.layers import Recurrent
from rnncore.placeholder import recording
from rnncore.runtime.error_boundary import pass_on_interruption
from rnncore.runtime.errors import ExportError

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}
_ARGUMENTS = ("input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first")


@dataclass(frozen=True)
class Invocation:
    """One call of a recurrent function.

    kind: its name, such as "lstm".  input: [batch, time, size], time first unless ``batch_first``.  hx: (h, c) of an LSTM,
    (h,) of the others.  lengths: of packed sequences, whose input is padded, see :mod:`rnncore.export.tracing.packing`.
    """

    kind: str
    input: Tensor
    lengths: Tensor | None
    hx: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    bias: bool
    num_layers: int
    bidirectional: bool
    batch_first: bool

    @classmethod
    def of(cls, kind: str, args: Sequence[Any]) -> Invocation:
        """Read the arguments of a call; packed ones have batch sizes in second place."""
        packed = isinstance(args[3], list | tuple)
        lengths = args[1] if packed else None
        hx, weights, bias, layers, _dropout, _train, bidirectional = args[2:9] if packed else args[1:8]
        states = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
        first = packed or bool(args[8])
        return cls(kind, args[0], lengths, states, tuple(weights), bool(bias), int(layers), bool(bidirectional), first)

    def layer(self, weights: Sequence[Tensor]) -> ConvertedLayer:
        """rnncore's layer that answers this call, with these weights."""
        per_cell = len(weights) // (self.num_layers * (2 if self.bidirectional else 1))
        projected = self.kind == "lstm" and per_cell == (5 if self.bias else 3)
        options: dict[str, Any] = {"proj_size": weights[1].shape[1]} if projected else {}
        if self.kind.startswith("rnn_"):
            options["nonlinearity"] = self.kind.removeprefix("rnn_")
        with torch.device("meta"):
            source = KINDS[self.kind](
                weights[0].shape[1],
                weights[1].shape[0] // {"lstm": 4, "gru": 3}.get(self.kind, 1),
                self.num_layers,
                bias=self.bias,
                bidirectional=self.bidirectional,
                batch_first=self.batch_first,
                **options,
            )
        for name, weight in zip(source._flat_weights_names, weights, strict=True):
            given = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight.detach(), requires_grad=False)
            setattr(source, name, given)
        return ConvertedLayer(source.eval())

    def answer(self, layer: ConvertedLayer) -> tuple[Tensor, ...]:
        """What torch's function gives: (y, h) or (y, h, c)."""
        hx = self.hx if self.kind == "lstm" else self.hx[0]
        y, final = layer(self.input if self.lengths is None else PackedSequence(self.input, self.lengths), hx)
        states = tuple(final) if self.kind == "lstm" else (final,)
        return (y.data if isinstance(y, PackedSequence) else y, *states)


class _Functions(TorchFunctionMode):
    """Hands every call of a recurrent function over sequences to ``answer``."""

    def __init__(self, answer: Callable[[Invocation, Callable[[], Any]], Any]) -> None:
        super().__init__()
        self._answer = answer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if name in KINDS:
            args = (*args, *(kwargs.pop(argument) for argument in _ARGUMENTS[len(args) :]))
            return self._answer(Invocation.of(name, args), lambda: func(*args))
        return func(*args, **kwargs)


class _Plain(PassingStates):
    """Runs rnncore's own layers as they are, out of sight of ``_Functions``."""

    def __init__(self) -> None:
        self.inside = False

    def record(
        self, layer: Recurrent, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :class:`rnncore.placeholder.Recorder`."""
        before, self.inside = self.inside, True
        try:
            with recording(None), packing_by_torch():  # type: ignore[arg-type]
                return layer(x, state, lengths)
        finally:
            self.inside = before


@dataclass(frozen=True)
class Operator:
    """A layer that answers calls of torch.``kind`` by the part at ``path``, under the name that it gets in the file."""

    name: str
    path: str
    kind: str
    layer: ConvertedLayer


class Operators:
    """Which layer answers which call of a recurrent function, in the order of the calls."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        self._operators = tuple(operators)
        self._next = 0
        self._callers: Callers | None = None

    @property
    def layers(self) -> dict[str, ConvertedLayer]:
        """Every layer once, by its name."""
        return {operator.name: operator.layer for operator in self._operators}

    @contextmanager
    def answering(self, callers: Callers | None = None) -> Iterator[None]:
        """Answer the calls inside the block with these layers.

        Without ``callers`` they are those that were observed, in their order; with it, layers are found by who calls.
        """
        self._next, self._callers = 0, callers
        with _Functions(self._answer):
            yield

    def _answer(self, call: Invocation, _run: Callable[[], Any]) -> tuple[Tensor, ...]:
        return call.answer(self._find(call))

    def _find(self, call: Invocation) -> ConvertedLayer:
        if self._callers is not None:
            path = self._callers.path(2)
            found = [o for o in self._operators if o.path == path and o.kind == call.kind]
            if len({operator.name for operator in found}) == 1:
                return found[0].layer
        if self._next >= len(self._operators):
            raise ExportError(
                f"torch.{call.kind} is called more often while the module is traced than for its example: what is called "
                "must not depend on the values of the inputs"
            )
        self._next += 1
        return self._operators[self._next - 1].layer


def find_operators(module: nn.Module, example: Example, seed: int) -> Operators:
    """The calls of torch's recurrent functions that ``module`` makes, besides those inside rnncore's layers.

    Raises:
        ExportError: a weight depends on the inputs.
    """
    tensors = [i.value for i in example.inputs]
    calls = _observe(module, example, tensors)
    if not calls:
        return Operators([])
    try:
        again = _observe(module, example, example.like_itself(torch.Generator().manual_seed(seed)))
    except Exception as failure:
        pass_on_interruption(failure)
        again = []  # the module is made for its example alone: verification, which needs other inputs, says more
    for (path, first), (_, second) in zip(calls, again, strict=False):
        if any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first.weights, second.weights, strict=True)):
            raise ExportError(
                f"{path or type(module).__name__} calls torch.{first.kind} with weights that depend on the inputs; a file "
                "holds weights that are the same in every call: write the step as a rnncore.Cell that takes them as input"
            )
    operators: list[Operator] = []
    for path, call in calls:
        known = next((o for o, (p, c) in zip(operators, calls, strict=False) if p == path and _same(c, call)), None)
        operators.append(
            known or Operator(_name(path, call, module, operators), path, call.kind, call.layer(call.weights))
        )
    return Operators(operators)


def _observe(module: nn.Module, example: Example, tensors: Sequence[Tensor]) -> list[tuple[str, Invocation]]:
    """Each call and the path of the part that makes it."""
    callers, plain = Callers(module), _Plain()
    found: list[tuple[str, Invocation]] = []

    def answer(call: Invocation, run: Callable[[], Any]) -> Any:
        if not plain.inside:
            kept = tuple(w if isinstance(w, nn.Parameter) else w.detach().clone() for w in call.weights)
            found.append((callers.path(), replace(call, weights=kept)))
            if call.lengths is not None:  # padded data, of which torch's function knows nothing
                return call.answer(call.layer(kept))
        return run()

    # Converted layers take packed sequences as padded ones wherever there is a recorder.
    with (
        unchanged(module),
        recording(plain),
        packing_by(packer_of(module)),
        torch.no_grad(),
        _Functions(answer),
    ):
        example.call(module, tensors)
    return found


def _same(a: Invocation, b: Invocation) -> bool:
    options = ("kind", "bias", "num_layers", "bidirectional", "batch_first")
    if any(getattr(a, name) != getattr(b, name) for name in options) or len(a.weights) != len(b.weights):
        return False
    return all(v is w or (v.shape == w.shape and torch.equal(v, w)) for v, w in zip(a.weights, b.weights, strict=True))


def _name(path: str, call: Invocation, module: nn.Module, before: Sequence[Operator]) -> str:
    """The path of the layer that calls; for code that calls the function itself, with the function's name behind."""
    name = path
    if not path or not isinstance(module.get_submodule(path), nn.RNNBase):
        name = f"{path}.{call.kind}" if path else call.kind
    taken = {operator.name for operator in before}
    return name if name not in taken else next(f"{name}{n}" for n in count(2) if f"{name}{n}" not in taken)
