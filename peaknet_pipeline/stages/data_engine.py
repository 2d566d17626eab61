"""What the data engine made, over the runs of a training set: frames and reflections per experiment and shell."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.labels.split import CLASSICAL
from peaknet_pipeline.peaks.fit_statistics import shell_edges, summarize_fits
from peaknet_pipeline.schemas import DATA_ENGINE, DataEngineTable, FitTable, SplitTable
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import curated_fits_path, fits_path
from peaknet_pipeline.tables import empty_table, make_table

N_SHELLS = 8
READ = ["frame", "inv_d", "accepted", "significance", "reduced_chi2", "sigma_ss", "sigma_fs"]
"""The columns of the fits that the summary needs."""


def summarize_training_set(store: Store, split: SplitTable) -> DataEngineTable:
    """Summarize the fits of a training set's frames per run and resolution shell, the same shells for all runs."""
    runs = [
        (str(key), part, _read_fits(store, str(key), part)) for key, part in split.groupby("run", sort=True)
    ]
    highest = max((float(fits["inv_d"].max()) for _, _, fits in runs if len(fits)), default=0.0)
    if not highest:
        return empty_table(DATA_ENGINE)
    edges = shell_edges(highest, N_SHELLS)
    parts = [
        summarize_fits(fits, edges).assign(
            run=key, experiment=part["experiment"].iloc[0], subset=part["subset"].iloc[0]
        )
        for key, part, fits in runs
    ]
    table = pd.concat(parts, ignore_index=True)
    return make_table(DATA_ENGINE, {name: table[name] for name in DATA_ENGINE.column_names()})


def engine_figures(table: DataEngineTable, split: SplitTable) -> Mapping[str, Any]:
    """Return frames and labelled reflections per experiment, and the share of fits that label."""
    figures: dict[str, Any] = {}
    for experiment, part in split.groupby("experiment", sort=True):
        figures[f"{experiment}_frames"] = len(part)
        figures[f"{experiment}_reflections"] = int(part["n_peaks"].sum())
    fitted = int(table["n_fitted"].sum())
    figures["fitted_reflections"] = fitted
    figures["labelled_share"] = float(table["n_accepted"].sum()) / fitted if fitted else float("nan")
    return figures


def _read_fits(store: Store, key: str, part: SplitTable) -> FitTable:
    parts = []
    for labels, frames in part.groupby("labels")["frame"]:
        path = fits_path(store, key) if labels == CLASSICAL else curated_fits_path(store, key)
        fits = pd.read_parquet(path, columns=READ)
        parts.append(fits[np.isin(fits["frame"].to_numpy(), frames.to_numpy())])
    return pd.concat(parts, ignore_index=True)
