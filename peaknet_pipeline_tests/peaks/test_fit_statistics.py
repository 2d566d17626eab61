"""Counts per shell and per flag add up to the fits that they summarize."""

import numpy as np

from peaknet_pipeline.peaks.fit_params import FitFlag
from peaknet_pipeline.peaks.fit_statistics import count_rejections, summarize_fits
from peaknet_pipeline.tables import empty_table, make_table
from peaknet_pipeline.types import FITS, REFLECTIONS


def make_tables(n=200):
    rng = np.random.default_rng(0)
    inv_d = rng.uniform(0.1, 0.6, n)
    flags = rng.choice([0, int(FitFlag.CHI2), int(FitFlag.CHI2 | FitFlag.INSIGNIFICANT)], n)
    key = {
        "frame": np.arange(n) // 10,
        "lattice": np.zeros(n),
        "h": np.arange(n),
        "k": np.zeros(n),
        "l": np.zeros(n),
    }
    zero = {name: np.zeros(n) for name in ("fs", "ss", "excitation_error")}
    reflections = make_table(REFLECTIONS, {**key, **zero, "panel": np.zeros(n), "inv_d": inv_d})
    shape = {"sigma_ss": inv_d * 2, "sigma_fs": inv_d, "significance": 10 * inv_d, "reduced_chi2": np.ones(n)}
    fits = make_table(
        FITS,
        {
            **key,
            **shape,
            "panel": np.zeros(n),
            "n_pixels": np.full(n, 81),
            "flags": flags,
            "accepted": flags == 0,
        },
    )
    return fits, reflections


def test_shells_hold_every_fit_once_and_their_own_medians():
    fits, reflections = make_tables()
    shells = summarize_fits(fits, reflections.sample(frac=1, random_state=1), n_shells=5)
    assert shells["n_fitted"].sum() == len(fits)
    assert shells["n_accepted"].sum() == fits["accepted"].sum()
    assert (shells["sigma_fs"].to_numpy() > shells["inv_d_low"].to_numpy()).all()
    assert (shells["sigma_fs"].to_numpy() < shells["inv_d_high"].to_numpy()).all()


def test_a_fit_with_two_flags_counts_in_both():
    fits, _ = make_tables()
    counts = count_rejections(fits)
    assert counts["chi2"] == (~fits["accepted"]).sum()
    assert counts["insignificant"] == ((fits["flags"] & int(FitFlag.INSIGNIFICANT)) != 0).sum()
    assert counts["negative"] == 0


def test_no_fits_give_no_shells():
    assert len(summarize_fits(empty_table(FITS), empty_table(REFLECTIONS))) == 0
