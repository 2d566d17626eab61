"""The finder's parameter scan as a heat map."""

import pandas as pd

from peaknet_pipeline.plots.style import label_axes, new_figure, to_png


def plot_scan(scan: pd.DataFrame, *, title: str) -> bytes:
    """Draw the best indexing yield of every threshold and SNR, over the settings not shown; the table follows ``SCAN``."""
    best = scan.groupby(["min_snr", "threshold"])["indexing_yield"].max().unstack()
    figure, (axes,) = new_figure(6.4, 4.0)
    axes.grid(visible=False)
    drawn = axes.imshow(best.to_numpy(), origin="lower", aspect="auto", cmap="viridis", vmin=0)
    figure.colorbar(drawn, ax=axes, label="indexing yield (indexed / frames)")
    axes.set_xticks(range(best.shape[1]), [f"{value:g}" for value in best.columns])
    axes.set_yticks(range(best.shape[0]), [f"{value:g}" for value in best.index])
    for row, values in enumerate(best.to_numpy()):
        for column, value in enumerate(values):
            shade = "black" if value > 0.6 * best.to_numpy().max() else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=10)
    label_axes(axes, title, "threshold (adu)", "min_snr (σ)")
    return to_png(figure)
