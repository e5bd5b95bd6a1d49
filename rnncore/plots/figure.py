"""What all pictures have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rnncore.runtime.errors import InputError, MissingExtraError
from rnncore.runtime.format.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
_DOTS_PER_INCH = 150
# Colours that people with any colour vision tell apart (Okabe and Ito, 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@contextmanager
def drawing(path: str | Path, width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of this size in inches, and save it; no window, no global state of matplotlib is touched.

    Raises:
        InputError: the name ends in none of :data:`FORMATS`.
        MissingExtraError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise InputError(f"{target}: the name of a picture ends in one of {', '.join(FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plots", "drawing") from None
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")
    yield figure
    with replacing(target) as temporary:
        figure.savefig(temporary, format=target.suffix[1:].lower(), facecolor="white")
