"""Curves of recall against false peaks, several finders side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from peaknet_pipeline.plots.style import colour_of, label_axes, legend_below, new_figure, to_png

COLOURS = {"peakfinder8": "classical", "peaknet": "peaknet"}
"""Finders that have a colour of their own, by the name of that colour."""


def plot_finder_curves(
    classes: Mapping[str, Any], false_peaks: Sequence[float], bands: Sequence[str], *, shown: str = "all"
) -> bytes:
    """Draw recall against false peaks per frame, one picture for each band of true spots.

    Parameters
    ----------
    classes : mapping
        Per class of experiments and finder, per number of false peaks (as text), (found, true) per band.
    false_peaks : sequence of float
        Per frame.
    bands : sequence of str
    shown : str
        The class that is drawn; the first where there is none of that name.

    """
    name = shown if shown in classes else next(iter(classes))
    finders = [key for key, value in classes[name].items() if isinstance(value, Mapping)]
    figure, axes = new_figure(13.0, 6.4, 2, -(-len(bands) // 2), sharey=True)
    for part, band in zip(axes, bands, strict=False):
        for number, finder in enumerate(finders):
            counts = [classes[name][finder][f"{rate:g}"][band] for rate in false_peaks]
            recall = [found / true if true else np.nan for found, true in counts]
            colour = colour_of(COLOURS.get(finder, finder), number)
            part.semilogx(false_peaks, recall, "o-", ms=5, color=colour, label=finder)
        label_axes(part, f"{band}: {counts[0][1]} true", "false peaks per frame", "")
        part.set_ylim(-0.03, 1.03)
    for part in axes[len(bands) :]:
        part.set_visible(False)
    for part in axes[:: -(-len(bands) // 2)]:
        part.set_ylabel("recall")
    legend_below(axes[0])
    return to_png(figure)
