"""What a model file may ask of the process that reads it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rnncore.runtime.errors import raise_all


@dataclass(frozen=True)
class Limits:
    """The most that a file may take to be loaded, inspected and verified; what asks for more is refused with the limit's name.

    No file that rnncore writes from an ordinary model comes near the defaults.  Raise one for a file that you know:
    ``load(path, limits=Limits(weights_bytes=40 << 30))``.

    file_bytes: of the model file; a protobuf message ends at 2 GiB anyway.
    weights_bytes: of the files beside it that weights are read from, together.
    metadata_bytes: of all metadata in the file, tokenizers and golden cases included.
    json_depth: how deep lists and objects may lie in each other in the metadata.
    golden_bytes: of all arrays of the golden cases, unpacked.
    state_numbers: numbers in the states of one sequence.
    fields: fields of the protobuf message, those in its messages included.
    graph_depth: how deep graphs may lie in each other (a loop in a branch in a loop ...).
    constant_numbers: numbers that onnxruntime may make from constants while it loads.  Where a graph could ask for more,
        nothing is made in advance; the file loads, and runs slower.
    constant_products: multiplications that it may do for that.
    verify_s: seconds that verifying an untrusted file may take; see :func:`rnncore.runtime.verify`.
    verify_bytes: memory that this may take.
    """

    file_bytes: int = 2 << 30
    weights_bytes: int = 8 << 30
    metadata_bytes: int = 64 << 20
    json_depth: int = 32
    golden_bytes: int = 64 << 20
    state_numbers: int = 1 << 24
    fields: int = 4_000_000
    graph_depth: int = 16
    constant_numbers: int = 1 << 26
    constant_products: int = 1 << 30
    verify_s: int = 300
    verify_bytes: int = 16 << 30

    def __post_init__(self) -> None:
        """Raise InputError that lists what is no positive integer."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        raise_all(
            [
                f"{name} is {value!r}, expected an integer of at least 1"
                for name, value in given.items()
                if isinstance(value, bool) or not isinstance(value, int) or value < 1
            ]
        )


DEFAULT_LIMITS = Limits()
