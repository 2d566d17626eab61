"""Pictures of rates by group."""

import numpy as np
import pandas as pd

from peaknet_pipeline.metrics import wilson_interval
from peaknet_pipeline.plots.style import (
    colour_of,
    label_axes,
    legend_below,
    name_of,
    new_figure,
    say_nothing,
    to_png,
)

RATES = (("hit rate", "hits", "frames"), ("indexing yield", "indexed", "frames"))


def plot_group_rates(rates: pd.DataFrame, *, title: str) -> bytes:
    """Draw hit rate and indexing yield of each group and finder with 95 % intervals; the table follows ``GROUP_RATES``."""
    names = list(dict.fromkeys(rates["group_name"]))
    figure, axes = new_figure(max(8.0, 3.0 + 0.8 * len(names)), 4.2, 1, 2)
    for place, (told, part, whole) in zip(axes, RATES, strict=True):
        for number, (finder, rows) in enumerate(rates.groupby("finder", sort=True)):
            x = np.array([names.index(name) for name in rows["group_name"]]) + 0.14 * (number - 0.5)
            value = rows[part].to_numpy(np.float64) / np.maximum(rows[whole].to_numpy(np.float64), 1.0)
            limits = [wilson_interval(int(a), int(b)) for a, b in zip(rows[part], rows[whole], strict=True)]
            spread = np.abs(np.array(limits).reshape(-1, 2).T - value)
            place.errorbar(
                x,
                value,
                spread,
                fmt="o",
                capsize=2,
                color=colour_of(str(finder), number),
                label=name_of(str(finder)),
            )
        place.set_xticks(range(len(names)), [name or "no group" for name in names], rotation=30, ha="right")
        place.set_ylim(-0.03, 1.03)
        label_axes(place, title, "group", f"{told} ({part} / {whole})")
        if not names:
            say_nothing(place)
    legend_below(axes[0])
    return to_png(figure)
