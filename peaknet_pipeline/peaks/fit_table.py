"""Fits as a table in adu and panel pixels, and back to profiles."""

import numpy as np
import pandas as pd

from peaknet_pipeline.peaks.fit import FitResult
from peaknet_pipeline.peaks.fit_patches import Patches
from peaknet_pipeline.profile import (
    AMPLITUDE,
    CENTRE_FS,
    CENTRE_SS,
    N_PROFILE,
    PLANE_A,
    PLANE_C,
    PROFILE_NAMES,
)
from peaknet_pipeline.schemas import FITS, FitTable, ReflectionTable
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import Float64Array


def fits_table(reflections: ReflectionTable, patches: Patches, result: FitResult) -> FitTable:
    """Return the fits as a FITS table in adu and panel pixels.

    Parameters
    ----------
    reflections : ReflectionTable or DataFrame
        One row per patch with ``frame, lattice, h, k, l, panel, inv_d, intensity, sigma``.

    """
    gain = np.ones((len(patches), N_PROFILE))
    gain[:, [AMPLITUDE, *range(PLANE_A, PLANE_C + 1)]] = patches.adu_per_photon[:, None]
    values = result.values * gain
    values[:, [CENTRE_SS, CENTRE_FS]] += patches.centre
    errors = result.errors * gain
    columns: dict[str, object] = {
        n: reflections[n].to_numpy() for n in ("frame", "lattice", "h", "k", "l", "panel")
    }
    columns |= {
        "inv_d": reflections["inv_d"].to_numpy(),
        "snr": _finite((reflections["intensity"] / reflections["sigma"]).to_numpy(np.float64)),
    }
    columns |= {name: _finite(values[:, i]) for i, name in enumerate(PROFILE_NAMES)}
    columns |= {f"{name}_error": _finite(errors[:, i]) for i, name in enumerate(PROFILE_NAMES)}
    columns |= {
        "significance": _finite(result.significance),
        "reduced_chi2": _finite(result.reduced_chi2),
        "n_pixels": result.n_pixels,
    }
    return make_table(FITS, {**columns, "flags": result.flags, "accepted": result.accepted})


def profile_values(fits: FitTable | pd.DataFrame) -> Float64Array:
    """Return the profile parameters of a FITS table, float64 (n, 11), centres in panel pixels."""
    return fits[list(PROFILE_NAMES)].to_numpy(dtype=np.float64)


def _finite(values: Float64Array) -> Float64Array:
    return np.where(np.abs(values) < 1e30, values, np.nan)
