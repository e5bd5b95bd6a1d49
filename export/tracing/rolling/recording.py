"""Run a module and write down every operation: quick, as nothing is traced, and free of the module's own Python."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from rnncore.export.tracing.callers import Callers, user_lines
from rnncore.export.tracing.copying import unchanged
from rnncore.export.tracing.data_reads import DataReads
from rnncore.export.tracing.example import Example
from rnncore.export.tracing.flat_packing import FlatPacker, packer_of
from rnncore.export.tracing.full_rows import FullRows
from rnncore.export.tracing.nesting import named_tensors
from rnncore.export.tracing.operators import Operators
from rnncore.export.tracing.packing import packing_by
from rnncore.export.tracing.rolling import known_operators as known
from rnncore.export.tracing.rolling.calls import Calls
from rnncore.export.tracing.rolling.complex_numbers import OF_PARTS, ComplexNumbers
from rnncore.export.tracing.rolling.log import Constant, Input, LayerCall, Log, Op, Ref, Weight, leaves
from rnncore.export.tracing.rolling.own_functions import forward_only
from rnncore.export.tracing.rolling.questions import Answers, Question, refusal
from rnncore.export.tracing.rolling.recorded_layers import LAYERS, LayerRecorder
from rnncore.layers import Recurrent
from rnncore.placeholder import recording
from rnncore.runtime.errors import ExportError

aten = torch.ops.aten
_LARGEST_CONSTANT = 4096


class Logger(TorchDispatchMode):
    """Writes down what runs.

    ends: of the rows.  "full": every value that no input has a part in is known; "differ": numbers that are read off counts of
    the rows are known, and noted; "": neither.
    """

    def __init__(
        self,
        log: Log,
        callers: Callers,
        answers: Answers,
        counts: Collection[int],
        packer: FlatPacker | None,
        ends: str = "",
    ) -> None:
        super().__init__()
        self._counts = counts
        self._differ = ends == "differ"
        self._full = ends == "full"
        self._packer = packer
        self.log = log
        self._callers = callers
        self._answers = answers
        self._values: dict[int, Any] = {}
        self._kept: list[Tensor] = []  # or an identity would be given to another tensor
        self._complex = ComplexNumbers(
            lambda func, *args, **named: self.__torch_dispatch__(func, (), args, named),
            self._as_it_is,
            lambda tensor: self.name(tensor, Constant.of(tensor)),
        )

    def name(self, tensor: Tensor, value: Any) -> None:
        """Say what ``tensor`` is."""
        self._values[id(tensor)] = value
        self._kept.append(tensor)
        if not isinstance(value, Ref):
            self.log.shapes[value], self.log.dtypes[value] = tuple(tensor.shape), tensor.dtype

    def value(self, item: Any) -> Any:
        """An argument as the log has it."""
        if isinstance(item, list | tuple):
            return tuple(self.value(part) for part in item)
        if not isinstance(item, Tensor):
            return item
        if id(item) not in self._values:
            if item.numel() > _LARGEST_CONSTANT:
                raise ExportError(
                    f"a tensor {list(item.shape)} is neither input, weight nor computed; make it a buffer"
                )
            self.name(item, Constant.of(item))
        return self._values[id(item)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._complex.concerns(args, kwargs) or func in OF_PARTS:
            return self._complex.apply(func, args, kwargs)
        return self._real(func, args, kwargs)

    def _as_it_is(self, func: Any, *args: Any) -> Any:
        """Run and record an operation, whatever it is about."""
        result = func(*args)
        self._write(func, tuple(self.value(item) for item in args), {}, result)
        return result

    def _real(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run and record an operation on real numbers."""
        if self._full and func in known.READS and self._is_number(args[0]):
            return func(*args, **kwargs)
        if self._differ and func in known.READS[:2] and self._is_of_counts(args[0]):
            return self._read(func, args[0])
        if func in known.READS and args[0].dtype == torch.bool and args[0].numel() == 1 and not args[0].dim():
            return self._ask(self.value(args[0]), bool(func(*args, **kwargs)))
        if func in known.READS and (self._is_size(self.value(args[0])) or self._is_number(args[0])):
            return func(*args, **kwargs)
        if func in known.READS:
            raise refusal(func, user_lines(2))
        if self._packer is not None and func in known.OF_PACKED:
            found = self._of_packed(func, args)
            if found is not None:
                return found
        if func is aten.lift_fresh.default and self._is_new_number(args[0]):
            result = func(*args)
            number = args[0].item()  # of float32 as it was written: 0.3, which grows by 0.1
            number = float(str(np.float32(number))) if result.dtype == torch.float32 else number
            self._write(aten.full.default, (tuple(result.shape), number), {"dtype": result.dtype}, result)
            return result
        values = tuple(self.value(item) for item in args)
        named = {name: self.value(item) for name, item in kwargs.items() if name not in known.PLACES}
        result = func(*args, **kwargs)
        if func._schema.is_mutable:
            self._write(self._functional(func, values), values, named, result)
        elif (same := known.same_as(func, args, result, ends=self._differ)) is not None:
            self.name(result, values[same])
        elif func is aten.clone.default and isinstance(values[0], Ref):
            # Nothing is written into what is recorded, and code copies only what lies otherwise: the state that the first step
            # turns by transpose().contiguous(), and no other.
            self.name(result, values[0])
        else:
            self._write(func, values, named, result)
        return result

    def _is_new_number(self, tensor: Tensor) -> bool:
        """Whether code has just made a tensor of one number, which may be another one at the next step: ``torch.tensor(t)``."""
        return id(tensor) not in self._values and tensor.numel() == 1 and tensor.dtype in known.NUMBERS

    def _read(self, func: Any, tensor: Tensor) -> Any:
        """A number of one row, or a flag about such numbers, which the log keeps in mind."""
        number, value = func(tensor), self.value(tensor)
        if isinstance(value, Ref) and tensor.dtype != torch.bool:
            self.log.reads.append((value, number))
        return number

    def _is_of_counts(self, tensor: Tensor) -> bool:
        """Whether what is read is computed from counts of the rows, and whole numbers."""
        found = self._inputs_of(tensor)
        return tensor.numel() == 1 and not tensor.is_floating_point() and bool(found) and found <= {*self._counts}

    def _inputs_of(self, tensor: Tensor) -> set[int]:
        """The inputs that a tensor is computed from."""
        todo, seen, found = [self.value(tensor)], set[int](), set[int]()
        while todo:
            value = todo.pop()
            if isinstance(value, Input):
                found.add(value.index)
            if isinstance(value, Ref) and value.op not in seen:
                seen.add(value.op)
                todo += leaves(self.log.ops[value.op].everything)
        return found

    def _is_number(self, tensor: Tensor) -> bool:
        """Whether what is read is one number, made of weights and constants alone: it is one of the file, as they are."""
        if tensor.numel() != 1 or (
            tensor.dtype == torch.bool and not self._full
        ):  # flags may tell the first step from the others
            return False
        return not self._inputs_of(tensor)

    def _is_size(self, value: Any) -> bool:
        """Whether a number is the largest of some counts: in what is recorded that is the size they count along."""
        found = False
        while isinstance(value, Ref) and (target := self.log.ops[value.op].target) in (*known.LARGEST, *known.COPIES):
            found |= target in known.LARGEST
            value = self.log.ops[value.op].args[0]
        return found and isinstance(value, Input) and value.index in self._counts

    def _of_packed(self, func: Any, args: Any) -> Any:
        """A slice of packed rows: a step of theirs, or all rows of one; or all their steps."""
        assert self._packer is not None
        if func is aten.split_with_sizes.default:
            rows = self._packer.batch_of.get(args[0].shape[0])
            if rows is None or set(args[1]) != {rows} or args[2:] not in ((), (0,)):
                return None
            apart = self._steps_of_packed(args[0], rows)
            steps = list(apart.unbind(0))
            self._write(aten.unbind.int, (self.value(apart), 0), {}, steps)
            return steps
        values = tuple(self.value(item) for item in args)
        written = func is aten.slice_scatter.default
        place = self._packer.place(args[0], args[2:] if written else args[1:])
        if place is None or (written and place.step is not None):
            return None
        result: Tensor = func(*args)
        if place.step is None:
            self.name(result, values[int(written)])
        else:
            apart = self._steps_of_packed(args[0], place.rows)
            self._write(aten.select.int, (self.value(apart), 0, place.step), {}, result)
        return result

    def _steps_of_packed(self, data: Tensor, rows: int) -> Tensor:
        apart = data.unflatten(0, (-1, rows))
        self._write(aten.reshape.default, (self.value(data), tuple(apart.shape)), {}, apart)
        return apart

    def _ask(self, value: Any, natural: bool) -> bool:
        question = Question(self._callers.path(3), user_lines(3))
        answer = self._answers.get(question, natural)
        op = Op(question, (value,), {"answer": answer}, [], [], False, question.lines, question.path)
        self.log.ops.append(op)
        return answer

    def _functional(self, func: Any, values: tuple[Any, ...]) -> Any:
        """The operation that gives what ``func`` writes into its first argument."""
        name, _, overload = str(func).removeprefix("aten.").partition(".")
        twin = getattr(getattr(aten, name.removesuffix("_"), None), overload, None)
        own = isinstance(values[0], Ref) or (isinstance(values[0], Weight) and name in known.SETTLING)
        if twin is None or not name.endswith("_") or not own:
            raise ExportError(f"forward changes a tensor in place that is no result of its own ({func}){_where()}")
        return twin

    def _write(self, func: Any, values: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        target: Any = aten.reshape.default if func in known.RESHAPES else func
        if func in known.FILLED:  # of their first argument they take nothing but the size and the dtype
            target, named = aten.full.default, {"dtype": result.dtype}
            values = (tuple(result.shape), known.FILLED[func](values))
        if func is torch.ops.rnncore.recorded_layer.default:
            name, given, tensors, lengths = values
            target = LayerCall(name, given, lengths is not None)
            values = (*tensors, lengths) if lengths is not None else tensors
        results = list(result) if isinstance(result, list | tuple) else [result]
        tensors = [part for part in results if isinstance(part, Tensor)]
        shapes, dtypes = [tuple(t.shape) for t in tensors], [t.dtype for t in tensors]
        several = isinstance(result, list | tuple)
        op = Op(target, values, named, shapes, dtypes, several, user_lines(3), self._callers.path(3))
        self.log.ops.append(op)
        for part, tensor in enumerate(results):
            if isinstance(tensor, Tensor):
                self.name(tensor, Ref(len(self.log.ops) - 1, part))


def _where() -> str:
    lines = user_lines(3)
    return f":\n  {lines[-1]}" if lines else ""


class _Flat:
    """The module on flat tensors; what it gives is kept by name."""

    def __init__(self, module: nn.Module, example: Example) -> None:
        self._module, self._example = module, example
        self.names: list[str] = []

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = list(named_tensors(self._example.call(self._module, tensors), ""))
        self.names = [name for name, _ in found]
        return tuple(tensor for _, tensor in found)


def record(
    module: nn.Module,
    example: Example,
    operators: Operators,
    tensors: Sequence[Tensor],
    sizes: Mapping[str, int],
    answers: Answers,
) -> tuple[Log, dict[str, Recurrent]]:
    """What ``module`` runs on ``tensors``, inputs of the given ``sizes``, and the recurrent layers that it calls by name.

    answers: to questions of the code about values, where these shall not answer themselves.

    Raises:
        ExportError: it reads values of tensors, or changes weights.  Whatever the module itself raises.
    """
    callers, recorder, log = Callers(module), LayerRecorder(module, operators), Log(sizes)
    counts = [i for i, name in enumerate(example.names) if name in example.counts or name == example.lengths]
    ends = "full" if isinstance(module, FullRows) else "" if example.shorter is None else "differ"
    packer = packer_of(module)
    logger = Logger(log, callers, answers, counts, packer if isinstance(packer, FlatPacker) else None, ends)
    flat = _Flat(module, example)
    tensors = [tensor.detach().clone() for tensor in tensors]  # two inputs may be one tensor
    for path, weight in [*module.named_parameters(), *module.named_buffers()]:
        logger.name(weight, Weight(path))
    for i, tensor in enumerate(tensors):
        logger.name(tensor, Input(i))
    fast = torch.backends.mha.get_fastpath_enabled()
    token = LAYERS.set(recorder.layers)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            contexts: list[AbstractContextManager[Any]] = [
                *(
                    unchanged(module),
                    recording(recorder),
                    packing_by(packer),
                    forward_only(),
                    torch.no_grad(),
                ),
                *(
                    sdpa_kernel(SDPBackend.MATH),
                    operators.answering(callers),
                    Calls(ends),
                    DataReads(),
                    logger,
                ),
            ]
            for context in contexts:
                stack.enter_context(context)
            results = torch.func.functionalize(flat)(*tensors)
        log.outputs = [(name, logger.value(result)) for name, result in zip(flat.names, results, strict=True)]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        LAYERS.reset(token)
    return log, recorder.layers
