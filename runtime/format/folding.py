"""How much would onnxruntime compute while it loads a graph?

It runs every node whose inputs are constants, and keeps the result.  A few bytes can ask for gigabytes so: a matrix that is
multiplied by itself again and again, a table filled from a shape.  Here the sizes of such results are bounded from above,
without computing any.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass

from rnncore.runtime.errors import ModelFileError, NotOnnxError
from rnncore.runtime.format.limits import Limits
from rnncore.runtime.format.protobuf import Message, integers

# Field numbers of ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto, FunctionProto, ValueInfoProto.
_GRAPH, _FUNCTIONS = 7, 25
_NODES, _INITIALIZERS, _SPARSE, _INPUTS = 1, 5, 15, 11
_NODE_INPUTS, _NODE_OUTPUTS, _OP_TYPE, _ATTRIBUTES, _DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NAME, _TENSOR, _SUBGRAPH, _INTS, _SUBGRAPHS = 1, 5, 6, 8, 11
_DIMS, _DATA_TYPE, _INT64_DATA, _TENSOR_NAME, _RAW = 1, 2, 7, 8, 9
_FUNCTION_NAME, _FUNCTION_NODES, _FUNCTION_DOMAIN = 1, 7, 10
_INT64 = 7
_MOST_VALUES = 16  # of a constant that is read because it is a shape


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LIKE_FIRST = _names(
    "Abs Neg Exp Log Sqrt Reciprocal Floor Ceil Round Sign Erf Not Identity Cast CastLike Tanh Sigmoid HardSigmoid Relu "
    "LeakyRelu Elu Selu Softplus Softsign Softmax LogSoftmax Clip CumSum QuantizeLinear DequantizeLinear Sin Cos Tan IsNaN "
    "IsInf Trilu BitwiseNot Gelu Mish ThresholdedRelu Hardmax LpNormalization"
)
_SAME_COUNT = _names("Reshape Squeeze Unsqueeze Flatten Transpose")
_NO_MORE = _names(
    "Slice Split Shape Size ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare "
    "ReduceLogSum ReduceLogSumExp ArgMax ArgMin TopK Compress DynamicQuantizeLinear"
)
_BROADCAST = _names(
    "Add Sub Mul Div Pow Mod Where Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor Min Max Sum Mean PRelu "
    "BitShift BitwiseAnd BitwiseOr BitwiseXor"
)
_PRODUCT = _names("MatMul Gemm MatMulInteger Gather GatherElements GatherND")
_MATRIX = _names("MatMul MatMulInteger")
_BY_SHAPE = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""The input that says how large the result is, or how many times as large."""


class _UnlimitedError(Exception):
    """Nobody can say how large a result is."""


@dataclass(frozen=True, slots=True)
class _Constant:
    """numbers: at most so many.  dims: their shape, None if it is not known.  values: read if it may be a shape."""

    numbers: int
    dims: tuple[int, ...] | None = None
    values: tuple[int, ...] | None = None


_Constants = ChainMap[str, _Constant | None]
"""What is known of each name; None hides a name of a graph further out."""


def may_fold(data: bytes, model: Message, limits: Limits) -> bool:
    """Whether onnxruntime may compute constants of this graph in advance, within ``limits``."""
    graph = model.one(_GRAPH)
    if graph is None:
        return True
    work = _Work(data, limits.constant_numbers, limits.constant_products)
    try:
        work.graph(graph, ChainMap())
    except _UnlimitedError:
        return False
    return True


def check_functions(model: Message, limits: Limits) -> None:
    """Functions that a file defines are written out wherever they are called: ModelFileError if that is too much.

    Raises NotOnnxError for one that calls itself.
    """
    functions = {(f.one(_FUNCTION_DOMAIN, ""), f.one(_FUNCTION_NAME, "")): f for f in model.all(_FUNCTIONS)}
    if not functions:
        return
    calls = {name: _calls(function.all(_FUNCTION_NODES)) for name, function in functions.items()}
    sizes: dict[tuple[str, str], int] = {}
    for first in functions:
        open_ones: dict[tuple[str, str], None] = {}
        todo = [first]
        while todo:
            name = todo[-1]
            missing = [call for call in calls[name] if call in functions and call not in sizes]
            open_ones[name] = None
            if any(call in open_ones for call in missing):
                raise NotOnnxError(f"the function {name[1][:60]!r} in the file calls itself")
            if missing and name not in sizes:
                todo.append(missing[0])
                continue
            sizes[name] = 1 + sum(sizes.get(call, 1) for call in calls[name])
            open_ones.pop(todo.pop())
    graph = model.one(_GRAPH)
    total = sum(sizes.get(call, 1) for call in _calls([] if graph is None else graph.all(_NODES)))
    if max(total, *sizes.values()) > limits.fields:
        raise ModelFileError("the functions in the file have more nodes, written out, than limits.fields allows")


def _calls(nodes: Sequence[Message]) -> list[tuple[str, str]]:
    """Domain and type of all nodes, those in branches and loops too."""
    found, todo = [], list(nodes)
    while todo:
        node = todo.pop()
        found.append((node.one(_DOMAIN, ""), node.one(_OP_TYPE, "")))
        todo += [inner for graph in _subgraphs(node) for inner in graph.all(_NODES)]
    return found


def _subgraphs(node: Message) -> list[Message]:
    attributes = node.all(_ATTRIBUTES)
    return [graph for a in attributes for number in (_SUBGRAPH, _SUBGRAPHS) for graph in a.all(number)]


class _Work:
    """Adds up what is computed in advance; raises _UnlimitedError when it is too much."""

    def __init__(self, data: bytes, numbers: int, products: int) -> None:
        self._data = data
        self._numbers = numbers
        self._products = products

    def graph(self, graph: Message, outer: _Constants) -> None:
        given = {value.one(1, "") for value in graph.all(_INPUTS)}
        known = outer.new_child(dict.fromkeys(given))
        for tensor in (*graph.all(_INITIALIZERS), *(s.one(1) for s in graph.all(_SPARSE) if s.all(1))):
            name = tensor.one(_TENSOR_NAME, "")
            if name not in given:  # else a caller may replace it
                known[name] = constant = self._tensor(tensor)
                self._numbers += 2 * constant.numbers  # what is no more than the weights is never too much
        for node in graph.all(_NODES):
            inner = _subgraphs(node)
            for subgraph in inner:
                self.graph(subgraph, known)
            made = None if inner else self._made(node, known)
            for name in node.all(_NODE_OUTPUTS):
                known[name] = made

    def _made(self, node: Message, known: _Constants) -> _Constant | None:
        """What each output of a node is at most, None if it is not computed in advance."""
        names = [name for name in node.all(_NODE_INPUTS) if name]
        if not names:
            tensors = [t for a in node.all(_ATTRIBUTES) for t in a.all(_TENSOR)]
            return self._tensor(tensors[0]) if tensors and node.one(_OP_TYPE) == "Constant" else _Constant(_MOST_VALUES)
        inputs = [constant for name in names if (constant := known.get(name)) is not None]
        if len(inputs) < len(names):
            return None
        made, products = self._result(node, inputs)
        self._numbers -= made.numbers * max(1, len(node.all(_NODE_OUTPUTS)))
        self._products -= products
        if self._numbers < 0 or self._products < 0:
            raise _UnlimitedError
        return made

    def _result(self, node: Message, inputs: Sequence[_Constant]) -> tuple[_Constant, int]:
        """The result of a node and the products it takes."""
        op, first = node.one(_OP_TYPE, ""), inputs[0]
        if node.one(_DOMAIN, "") not in ("", "ai.onnx"):
            raise _UnlimitedError
        if op in _LIKE_FIRST:
            return _Constant(first.numbers, first.dims), first.numbers
        if op in _SAME_COUNT:
            return _Constant(first.numbers, self._moved(node, inputs)), first.numbers
        if op in _NO_MORE:
            return _Constant(max(first.numbers, _MOST_VALUES)), first.numbers
        if op == "Concat":
            return _Constant(sum(each.numbers for each in inputs)), 0
        if op in _BROADCAST:
            made = _broadcast(inputs)
            return made, made.numbers
        if op in _PRODUCT:
            return _product(op, inputs)
        place = _BY_SHAPE.get(op)
        if place is None or place >= len(inputs) or inputs[place].values is None:
            raise _UnlimitedError
        numbers = math.prod(max(value, 1) for value in inputs[place].values or ())
        numbers *= 1 if place == 0 else first.numbers
        return _Constant(numbers), numbers

    def _moved(self, node: Message, inputs: Sequence[_Constant]) -> tuple[int, ...] | None:
        """The shape of what is only moved, if it is easily told."""
        op, dims = node.one(_OP_TYPE), inputs[0].dims
        if dims is None:
            return None
        if op == "Reshape":
            values = inputs[1].values if len(inputs) > 1 else None
            return None if values is None or min(values, default=1) < 1 else values
        if op == "Transpose":
            attributes = [a for a in node.all(_ATTRIBUTES) if a.one(_ATTRIBUTE_NAME) == "perm"]
            perm = integers(self._data, attributes[0], _INTS) if attributes else list(reversed(range(len(dims))))
            return tuple(dims[axis] for axis in perm) if sorted(perm) == list(range(len(dims))) else None
        return None

    def _tensor(self, tensor: Message) -> _Constant:
        dims = tuple(integers(self._data, tensor, _DIMS))
        numbers = math.prod(dims)
        if numbers > _MOST_VALUES or tensor.one(_DATA_TYPE) != _INT64:
            return _Constant(numbers, dims)
        if tensor.all(_RAW):
            start, end = tensor.one(_RAW)
            raw = [int.from_bytes(self._data[at : at + 8], "little", signed=True) for at in range(start, end, 8)]
            return _Constant(numbers, dims, tuple(raw))
        return _Constant(numbers, dims, tuple(integers(self._data, tensor, _INT64_DATA)))


def _broadcast(inputs: Sequence[_Constant]) -> _Constant:
    shapes = [each.dims for each in inputs if each.dims is not None]
    if len(shapes) < len(inputs):
        return _Constant(math.prod(max(each.numbers, 1) for each in inputs))
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    dims = tuple(max(sizes) for sizes in zip(*padded, strict=True))
    return _Constant(math.prod(dims), dims)


def _product(op: str, inputs: Sequence[_Constant]) -> tuple[_Constant, int]:
    """Of two matrices of known shape exactly, else no more than each number with each."""
    a, b = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
    if op in _MATRIX and a.dims is not None and b.dims is not None and len(a.dims) == len(b.dims) == 2:
        dims = (a.dims[0], b.dims[1])
        return _Constant(math.prod(dims), dims), math.prod(dims) * max(a.dims[1], 1)
    numbers = a.numbers * max(b.numbers, 1)
    return _Constant(numbers), numbers
