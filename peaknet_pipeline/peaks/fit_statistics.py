"""What the data engine made: fits per resolution shell, and why fits were rejected."""

import numpy as np
import pandas as pd

from peaknet_pipeline.peaks.fit_params import FitFlag
from peaknet_pipeline.schemas import FitTable
from peaknet_pipeline.types import Float64Array


def count_rejections(fits: FitTable) -> dict[str, int]:
    """Count the fits with each flag; a fit may carry several."""
    flags = fits["flags"].to_numpy(np.int64)
    return {str(flag.name).lower(): int(np.count_nonzero(flags & int(flag))) for flag in FitFlag}


def shell_edges(highest: float, n_shells: int) -> Float64Array:
    """Return the edges, (n_shells + 1,), Å⁻¹, of shells of equal reciprocal volume from 0 to ``highest``."""
    return np.asarray(np.cbrt(np.linspace(0.0, highest**3, n_shells + 1)), dtype=np.float64)


def summarize_fits(fits: FitTable, edges: Float64Array) -> pd.DataFrame:
    """Summarize fits per resolution shell.

    Parameters
    ----------
    fits : FitTable
        Of one run.
    edges : float64, (n_shells + 1,), Å⁻¹
        What lies beyond the last counts in the last shell.

    Returns
    -------
    DataFrame
        One row per shell: ``inv_d_low, inv_d_high, frames, n_fitted, n_accepted, accepted_share``, and medians
        over the accepted fits: ``significance, reduced_chi2, sigma_ss, sigma_fs``, as in ``DATA_ENGINE``.

    """
    n_shells = len(edges) - 1
    inv_d = fits["inv_d"].to_numpy(np.float64)
    shell = np.clip(np.searchsorted(edges, inv_d, side="right") - 1, 0, n_shells - 1)
    rows = [_summarize_shell(fits[shell == i], edges[i], edges[i + 1]) for i in range(n_shells)]
    return pd.DataFrame(rows)


def _summarize_shell(fits: pd.DataFrame, low: float, high: float) -> dict[str, float]:
    accepted = fits[fits["accepted"].to_numpy(bool)]
    medians = {
        name: float(accepted[name].median())
        for name in ("significance", "reduced_chi2", "sigma_ss", "sigma_fs")
    }
    counts = {
        "frames": accepted["frame"].nunique(),
        "n_fitted": len(fits),
        "n_accepted": len(accepted),
        "accepted_share": len(accepted) / len(fits) if len(fits) else np.nan,
    }
    return {"inv_d_low": float(low), "inv_d_high": float(high), **counts, **medians}
