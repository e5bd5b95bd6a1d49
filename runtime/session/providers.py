"""What computes a model: the execution providers of onnxruntime, the CPU unless somebody says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rnncore.runtime.errors import InputError

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
_ENDING = "ExecutionProvider"

Provider = tuple[str, dict[str, Any]]
Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]]


def read_providers(providers: Providers | None) -> tuple[Provider, ...]:
    """Providers by their full names with their options, the CPU last, which takes what the others cannot.

    ``"CUDAExecutionProvider"`` may be called ``"cuda"``.  Raises InputError for one that this onnxruntime does not have.
    """
    if providers is None:
        return ((CPU, {}),)
    import onnxruntime

    listed = [providers] if isinstance(providers, str) else providers
    if not isinstance(listed, Sequence) or isinstance(listed, bytes) or not listed:
        raise InputError(f'providers is {providers!r}, expected names such as ["CUDAExecutionProvider"]')
    available = {name.lower(): name for name in onnxruntime.get_available_providers()}
    found: dict[str, dict[str, Any]] = {}
    for one in listed:
        name, options = _name_and_options(one)
        full = available.get(name.lower()) or available.get((name + _ENDING).lower())
        if full is None:
            raise InputError(
                f"providers asks for {name!r}, this onnxruntime {onnxruntime.__version__} has "
                f"{', '.join(sorted(available.values()))}: install the package of onnxruntime that brings it"
            )
        found[full] = options
    return tuple((found | {CPU: found.get(CPU, {})}).items())


def on_cpu_only(providers: Sequence[Provider]) -> bool:
    """Whether nothing but the CPU computes."""
    return all(name == CPU for name, _ in providers)


def check_started(session: onnxruntime.InferenceSession, providers: Sequence[Provider]) -> None:
    """Raise InputError if a provider that was asked for does not take part.

    onnxruntime goes on without one that cannot start, a graphics card without its libraries, say, as if nothing had happened.
    """
    missing = [name for name, _ in providers if name not in session.get_providers()]
    if missing:
        raise InputError(
            f"onnxruntime cannot start {', '.join(missing)}: its libraries or its device are missing here, or its options are "
            "wrong; load without it to run on the CPU"
        )


def _name_and_options(one: object) -> tuple[str, dict[str, Any]]:
    if isinstance(one, str):
        return one, {}
    if isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[0], str) and isinstance(one[1], Mapping):
        return one[0], dict(one[1])
    raise InputError(
        f"providers holds {one!r}, expected a name, or a name and its options: ('cuda', {{'device_id': 0}})"
    )
