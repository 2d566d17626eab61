"""Counts per shell and per flag add up to the fits that they summarize."""

import numpy as np
import pytest

from peaknet_pipeline.peaks.fit_params import FitFlag
from peaknet_pipeline.peaks.fit_statistics import count_rejections, shell_edges, summarize_fits
from peaknet_pipeline.schemas import FITS
from peaknet_pipeline.tables import empty_table, make_table


@pytest.fixture
def fits():
    n, rng = 200, np.random.default_rng(0)
    inv_d = rng.uniform(0.1, 0.6, n)
    flags = rng.choice([0, int(FitFlag.CHI2), int(FitFlag.CHI2 | FitFlag.INSIGNIFICANT)], n)
    zero = {name: np.zeros(n) for name in ("lattice", "k", "l", "panel")}
    shape = {"sigma_ss": inv_d * 2, "sigma_fs": inv_d, "significance": 10 * inv_d, "reduced_chi2": np.ones(n)}
    counts = {"n_pixels": np.full(n, 81), "flags": flags, "accepted": flags == 0}
    return make_table(
        FITS, {**zero, **shape, **counts, "frame": np.arange(n) // 10, "h": np.arange(n), "inv_d": inv_d}
    )


def test_shells_hold_every_fit_once_and_their_own_medians(fits):
    edges = shell_edges(0.6, 5)
    assert np.diff(edges**3) == pytest.approx(0.6**3 / 5)
    shells = summarize_fits(fits, edges)
    assert shells["n_fitted"].sum() == len(fits)
    assert shells["n_accepted"].sum() == fits["accepted"].sum()
    assert (shells["frames"] <= shells["n_accepted"]).all()
    inside = (shells["sigma_fs"] > shells["inv_d_low"]) & (shells["sigma_fs"] < shells["inv_d_high"])
    assert inside[shells["n_accepted"] > 0].all()


def test_what_lies_beyond_the_last_edge_counts_in_the_last_shell(fits):
    shells = summarize_fits(fits, shell_edges(0.2, 4))
    beyond = (fits["inv_d"] >= shells["inv_d_low"].iloc[-1]).sum()
    assert shells["n_fitted"].iloc[-1] == beyond


def test_a_fit_with_two_flags_counts_in_both(fits):
    counts = count_rejections(fits)
    assert counts["chi2"] == (~fits["accepted"]).sum()
    assert counts["insignificant"] == ((fits["flags"] & int(FitFlag.INSIGNIFICANT)) != 0).sum()
    assert counts["negative"] == 0


def test_no_fits_give_empty_shells():
    assert summarize_fits(empty_table(FITS), shell_edges(0.5, 3))["n_fitted"].tolist() == [0, 0, 0]
