"""What has to be known of the graph in a file before onnxruntime may see it."""

from __future__ import annotations

from dataclasses import dataclass

from rnncore.runtime.format.folding import check_functions, may_fold
from rnncore.runtime.format.limits import Limits
from rnncore.runtime.format.protobuf import parse
from rnncore.runtime.format.tensors import Outside, check_tensors, outside_tensors


@dataclass(frozen=True)
class Structure:
    """outside: the tensors in other files.  foldable: whether constants may be computed while the graph is loaded."""

    outside: tuple[Outside, ...]
    foldable: bool

    @classmethod
    def of(cls, data: bytes, limits: Limits) -> Structure:
        """Read the bytes of a file from end to end.

        Raises:
            NotOnnxError: they are not as ONNX files are written.
            ModelFileError: the file asks for more than ``limits`` allows.
        """
        messages = parse(data, limits)
        check_tensors(data, messages, limits)
        check_functions(messages[0], limits)
        return cls(tuple(outside_tensors(data, messages)), may_fold(data, messages[0], limits))

    @property
    def nested(self) -> frozenset[str]:
        """Files that tensors in branches, loops and functions are in."""
        return frozenset(tensor.location for tensor in self.outside if tensor.nested)
