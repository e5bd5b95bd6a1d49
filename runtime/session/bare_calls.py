"""Calls of onnxruntime without what its Python does around them, which here costs as much as all checks of our own.

Where what they call is to be found is no promise of onnxruntime's: without it, the public method is called itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

Run = Callable[[Sequence[str], dict[str, Any], None], Sequence[Any]]
"""Runs a session: names of outputs, inputs by name, no options."""


def run_of(session: InferenceSession) -> Run:
    """``session.run``, which looks at the names and kinds of what it is given, and falls back to other providers."""
    bare: Run | None = getattr(getattr(session, "_sess", None), "run", None)
    public: Run = session.run
    return public if bare is None or session.get_providers() != ["CPUExecutionProvider"] else bare


def bound_run_of(
    session: InferenceSession, pair: tuple[IOBinding, IOBinding]
) -> tuple[Callable[..., Any], tuple[Any, Any]]:
    """``session.run_with_iobinding``, which only takes two attributes, and its arguments for each of ``pair``."""
    bare = getattr(getattr(session, "_sess", None), "run_with_iobinding", None)
    inner = [getattr(binding, "_iobinding", None) for binding in pair]
    if bare is None or None in inner:
        return session.run_with_iobinding, ((pair[0],), (pair[1],))
    return bare, ((inner[0], None), (inner[1], None))
