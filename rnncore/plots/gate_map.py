"""Gate activations and cell states over texts, as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnncore.plots.figure import drawing
from rnncore.plots.text_gates import TextGates
from rnncore.runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_TITLES = {
    "reset": "reset gate Γr",
    "input": "input gate Γu",
    "forget": "forget gate Γf",
    "update": "update gate z = 1 - Γu",
    "keep": "kept part of the old state",
    "output": "output gate Γo",
    "candidate": "candidate c̃",
    "added": "added to the state",
    "c": "cell state c",
    "h": "hidden state h",
}
_SIGNED = ("candidate", "added", "c", "h")
_MOST_LABELS = 40  # units with their number on the axis


def plot_gates(
    recorded: TextGates | Sequence[TextGates],
    out: str | Path,
    *,
    units: int | Sequence[int] = 16,
    names: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draw a heat map for each gate (below each other) and text (side by side): units downwards, tokens across.

    Gates run from 0 (white) to 1 (dark); states and candidates from negative (blue) to positive (red), on one scale for
    all texts, so that colours can be compared.

    Args:
        recorded: one text or several, of one model and layer.
        out: picture to write, .png, .svg or .pdf.
        units: which; a number means so many that change most in the first text's ``c`` (or else ``h``).
        names: gates and states to show; all unless given.
        title: above the picture.

    Raises:
        InputError: nothing recorded, a unit or name that is not there, or another ending of ``out``.
    """
    texts = [recorded] if isinstance(recorded, TextGates) else list(recorded)
    if not texts:
        raise InputError("no texts, expected at least one")
    names = list(texts[0].values) if names is None else list(names)
    unknown = [name for name in names if name not in texts[0].values]
    if unknown:
        raise InputError(f"nothing was recorded of {', '.join(unknown)}; recorded: {', '.join(texts[0].values)}")
    chosen = _units(texts[0], units)
    steps = [len(text.tokens) for text in texts]
    width = 1.6 + sum(max(2.5, 0.34 * count) for count in steps)
    row = max(1.2, min(0.2 * len(chosen), 4.0))
    with drawing(out, width, len(names) * row + 1.6) as figure:
        grid = figure.subplots(len(names), len(texts), squeeze=False, sharey=True, width_ratios=steps)
        for line, name in zip(grid, names, strict=True):
            images = [_draw(axes, text, name, chosen, texts) for axes, text in zip(line, texts, strict=True)]
            line[0].set_ylabel("unit")
            figure.colorbar(images[-1], ax=list(line), fraction=0.03, pad=0.01)
            line[0].set_title(_TITLES.get(name, name), loc="left", fontsize=10)
        for axes, text in zip(grid[-1], texts, strict=True):
            axes.set_xticks(range(len(text.tokens)), text.tokens, rotation=60, ha="right", rotation_mode="anchor")
            axes.set_xlabel("token read")
        if title:
            figure.suptitle(title)


def _draw(axes: Axes, text: TextGates, name: str, units: Sequence[int], texts: Sequence[TextGates]) -> AxesImage:
    values = text.values[name][:, list(units)].T
    if name in _SIGNED or name not in _TITLES:
        largest = max(float(one.values[name][:, list(units)].abs().max()) for one in texts)
        image = axes.imshow(values.numpy(), aspect="auto", cmap="RdBu_r", vmin=-largest, vmax=largest)
    else:
        image = axes.imshow(values.numpy(), aspect="auto", cmap="Greens", vmin=0.0, vmax=1.0)
    every = max(1, -(-len(units) // _MOST_LABELS))
    axes.set_yticks(range(0, len(units), every), [str(unit) for unit in units[::every]], fontsize=7)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def _units(text: TextGates, units: int | Sequence[int]) -> list[int]:
    state = "c" if "c" in text.values else list(text.values)[-1]
    size = min(values.shape[1] for values in text.values.values())
    if isinstance(units, int):
        if units < 1:
            raise InputError(f"units is {units}, expected at least 1")
        return [unit for unit in text.strongest_units(units, state) if unit < size]
    wrong = [unit for unit in units if not 0 <= unit < size]
    if wrong or not units:
        raise InputError(f"units are {list(units)}, expected some of 0 to {size - 1}")
    return list(units)
