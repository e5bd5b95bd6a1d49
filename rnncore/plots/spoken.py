"""What a recogniser hears when: a spectrogram with the letters over it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from rnncore.plots.figure import COLOURS, drawing
from rnncore.runtime.errors import InputError
from rnncore.runtime.tasks.ctc import BLANK

_INCHES_OF_A_SECOND = 3.2
_LEAST_INCHES, _MOST_INCHES = 5.0, 22.0


def plot_spoken(
    frames: Any,
    log_probs: Any,
    labels: Sequence[str],
    out: str | Path,
    *,
    seconds: float,
    title: str = "",
) -> None:
    """Draw a spectrogram, over it each label where it is heard, and under it how sure the recogniser is of each.

    Args:
        frames: what it read, [time, bins], low frequencies first.
        log_probs: what it answered, ``Recogniser.log_probs``: [steps, 1 + labels], as many steps as frames or fewer.
        labels: ``Recogniser.labels``.
        out: picture to write, .png, .svg or .pdf.
        seconds: length of the recording.
        title: above the picture.

    Raises:
        InputError: shapes that do not fit, seconds not above 0, or another ending of ``out``.
    """
    heard, answers = np.asarray(frames, np.float64), np.asarray(log_probs, np.float64)
    if (
        heard.ndim != 2
        or answers.ndim != 2
        or answers.shape[1] != 1 + len(labels)
        or not len(heard)
        or not len(answers)
    ):
        raise InputError(
            f"frames are {list(heard.shape)}, log_probs {list(answers.shape)}, expected [time, bins] and "
            f"[steps, {1 + len(labels)}]"
        )
    if not 0 < seconds < float("inf"):
        raise InputError(f"seconds is {seconds}, expected above 0")
    said = spoken_labels(answers)
    width = min(_MOST_INCHES, max(_LEAST_INCHES, _INCHES_OF_A_SECOND * seconds))
    with drawing(out, width, 4.6) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
        above.imshow(heard.T, origin="lower", aspect="auto", cmap="magma", extent=(0.0, seconds, 0.0, heard.shape[1]))
        above.set_ylabel("frequency bin")
        step = seconds / len(answers)
        times = (np.arange(len(answers)) + 0.5) * step
        colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(dict.fromkeys(one for one, _ in said))}
        for label, colour in colours.items():
            below.plot(times, np.exp(answers[:, label]), color=colour, linewidth=1.3)
        for label, place in said:
            shown = labels[label - 1].replace(" ", "␣")
            above.axvline(times[place], color="white", linewidth=0.6, alpha=0.6)
            above.text(
                times[place], heard.shape[1] * 1.02, shown, ha="center", va="bottom", color=colours[label], fontsize=11,
                fontweight="bold", clip_on=False,
            )  # fmt: skip
        below.plot(times, np.exp(answers[:, BLANK]), color="0.75", linewidth=1.0, label="no letter")
        below.set_ylim(0.0, 1.05)
        below.set_ylabel("probability")
        below.set_xlabel("seconds")
        below.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        below.spines[["top", "right"]].set_visible(False)
        if title:
            figure.suptitle(title)


def spoken_labels(log_probs: np.ndarray) -> list[tuple[int, int]]:
    """(number of a label, its surest step) for each that the likeliest path says, in order."""
    best = log_probs.argmax(1)
    found = []
    for label, steps in groupby(range(len(best)), key=lambda step: int(best[step])):
        if label != BLANK:
            found.append((label, max(steps, key=lambda step: log_probs[step, label])))
    return found
