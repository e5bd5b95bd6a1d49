"""Gate activations and cell states over texts, as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnncore.plots.figure import drawing
from rnncore.plots.text_gates import TextGates, liveliest_units
from rnncore.runtime.errors import InputError
from rnncore.runtime.text.special_tokens import EOS

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
_INCHES_OF_A_LETTER, _INCHES_OF_A_WORD = 0.19, 0.34
_MOST_INCHES = 24.0  # of all texts together; wider pictures are unreadable on any screen
_SHOWN_CHARACTERS = 60  # of a text, above its column


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
        units: which; a number means so many whose ``c`` (or else ``h``) follows what is read most, in all texts together.
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
    chosen = _units(texts, units)
    steps = [len(text.tokens) for text in texts]
    letters = all(len(token) == 1 for text in texts for token in text.tokens[1:])
    wanted = sum(max(2.5, (_INCHES_OF_A_LETTER if letters else _INCHES_OF_A_WORD) * count) for count in steps)
    width = min(wanted, _MOST_INCHES)
    font = max(4.0, 9.0 * width / wanted)
    row = max(1.2, min(0.16 * len(chosen), 4.0))
    turned: dict[str, Any] = {} if letters else {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    with drawing(out, width + 1.6, len(names) * row + 2.0) as figure:
        grid = figure.subplots(len(names), len(texts), squeeze=False, sharey=True, width_ratios=steps)
        for line, name in zip(grid, names, strict=True):
            images = [_draw(axes, text, name, chosen, texts) for axes, text in zip(line, texts, strict=True)]
            figure.colorbar(images[-1], ax=list(line), fraction=0.03, pad=0.01)
            line[0].set_ylabel(f"{_TITLES.get(name, name)}\nunit", fontsize=9)
        for axes, text in zip(grid[0], texts, strict=True):
            axes.set_title(_beginning(text.text), loc="left", fontsize=10)
        for axes, text in zip(grid[-1], texts, strict=True):
            # The beginning of a text is a sign, not a letter, and would need the room of five.
            shown = ["⊢" if token == EOS and letters else token for token in text.tokens]
            axes.set_xticks(range(len(shown)), shown, fontsize=font, **turned)
            axes.set_xlabel("token read", fontsize=9)
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


def _beginning(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 1] + "…"


def _units(texts: Sequence[TextGates], units: int | Sequence[int]) -> list[int]:
    text = texts[0]
    state = "c" if "c" in text.values else list(text.values)[-1]
    size = min(values.shape[1] for values in text.values.values())
    if isinstance(units, int):
        if units < 1:
            raise InputError(f"units is {units}, expected at least 1")
        return [unit for unit in liveliest_units(texts, units, state) if unit < size]
    wrong = [unit for unit in units if not 0 <= unit < size]
    if wrong or not units:
        raise InputError(f"units are {list(units)}, expected some of 0 to {size - 1}")
    return list(units)
