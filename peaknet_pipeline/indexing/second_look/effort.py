"""Is a frame worth a search? Its number of weak spots at a few levels, against what the run's quiet frames show."""

import numpy as np

from peaknet_pipeline.types import Float32Array, Float64Array, IntArray

LEVELS = (4.0, 4.5, 5.0, 5.5, 6.5)
"""Significances at which weak spots are counted."""

WORTH = 0.02
"""Chance, under a quiet frame's numbers, below which a frame is searched."""


def level_counts(significance: Float32Array) -> IntArray:
    """Return how many weak spots reach each of ``LEVELS``, (n_levels,)."""
    return np.array([int((significance >= level).sum()) for level in LEVELS], dtype=np.int64)


def quiet_counts(counts: IntArray, noise: IntArray) -> Float64Array:
    """Return the mean counts of quiet frames, (n_levels,).

    Parameters
    ----------
    counts : (n_frames, n_levels)
        Of a sample of the run's frames, hits among them.
    noise : (m, n_levels)
        Of drawn noise with the backgrounds of such frames.

    Notes
    -----
    Drawn noise knows neither hot pixels nor a detector's correlated noise; the run's lowest tenth knows them, but may be
    hits where nearly
    all frames are. The lower of the two is taken, as a search too many costs only time. The mean of a Poisson variable lies
    about 1.28 σ above its lowest tenth.

    """
    drawn = noise.mean(axis=0)
    if len(counts) < 10:
        return np.asarray(drawn, dtype=np.float64)
    low = np.quantile(counts, 0.1, axis=0)
    most = np.maximum(2.0 * drawn, drawn + 0.3)
    return np.asarray(np.minimum(low + 1.28 * np.sqrt(low + 1.0), most))


def is_worth_a_search(counts: IntArray, quiet: Float64Array) -> bool:
    """Tell whether any count is unlikely for a quiet frame; see ``WORTH``."""
    from scipy.stats import poisson

    chance = np.asarray(poisson.sf(counts - 1, np.maximum(quiet, 1e-3)))
    return bool((chance[counts > 0] < WORTH).any())
