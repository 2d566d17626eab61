"""What the data engine made: fits per resolution shell, and why fits were rejected."""

import numpy as np
import pandas as pd

from peaknet_pipeline.peaks.fit_params import FitFlag
from peaknet_pipeline.types import FitTable, Float64Array, ReflectionTable

_KEY = ["frame", "lattice", "h", "k", "l", "panel"]


def count_rejections(fits: FitTable) -> dict[str, int]:
    """Count the fits with each flag; a fit may carry several."""
    flags = fits["flags"].to_numpy(np.int64)
    return {str(flag.name).lower(): int(np.count_nonzero(flags & int(flag))) for flag in FitFlag}


def summarize_fits(fits: FitTable, reflections: ReflectionTable, *, n_shells: int = 8) -> pd.DataFrame:
    """Summarize a run's fits per resolution shell of equal reciprocal volume.

    Parameters
    ----------
    fits, reflections : FitTable, ReflectionTable
        Of the same run; the reflections give the resolution.
    n_shells : int

    Returns
    -------
    DataFrame
        One row per shell: ``inv_d_low, inv_d_high`` (Å⁻¹), ``n_fitted``, ``n_accepted``, ``accepted_share``,
        and medians over
        the accepted fits: ``significance, reduced_chi2, sigma_ss, sigma_fs`` (px). Empty without fits.

    """
    joined = fits.merge(reflections[[*_KEY, "inv_d"]].drop_duplicates(_KEY), on=_KEY, how="left")
    inv_d = joined["inv_d"].to_numpy(np.float64)
    edges = _shell_edges(inv_d, n_shells)
    shell = np.clip(np.searchsorted(edges, inv_d, side="right") - 1, 0, n_shells - 1)
    rows = [
        _summarize_shell(joined[shell == i], edges[i], edges[i + 1])
        for i in range(n_shells if len(fits) else 0)
    ]
    return pd.DataFrame(rows, columns=list(_summarize_shell(joined[:0], 0.0, 0.0)))


def _shell_edges(inv_d: Float64Array, n_shells: int) -> Float64Array:
    if not len(inv_d):
        return np.zeros(n_shells + 1)
    return np.asarray(
        np.cbrt(np.linspace(inv_d.min() ** 3, inv_d.max() ** 3, n_shells + 1)), dtype=np.float64
    )


def _summarize_shell(fits: pd.DataFrame, low: float, high: float) -> dict[str, float]:
    accepted = fits[fits["accepted"].to_numpy(bool)]
    medians = {
        name: float(accepted[name].median())
        for name in ("significance", "reduced_chi2", "sigma_ss", "sigma_fs")
    }
    share = len(accepted) / len(fits) if len(fits) else np.nan
    counts = {"n_fitted": len(fits), "n_accepted": len(accepted), "accepted_share": share}
    return {"inv_d_low": float(low), "inv_d_high": float(high), **counts, **medians}
