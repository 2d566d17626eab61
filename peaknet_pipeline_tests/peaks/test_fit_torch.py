"""The torch solver ends where the compiled one does."""

from functools import partial

import numpy as np
import pytest

from peaknet_pipeline.bench.fit import draw_patches
from peaknet_pipeline.peaks import fit
from peaknet_pipeline.peaks.fit import fit_patches
from peaknet_pipeline.peaks.fit_lm import CONVERGED, solve_batch
from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.fit_starts import photon_weights, start_parameters
from peaknet_pipeline.peaks.fit_torch import solve_batch_torch
from peaknet_pipeline.profile import profile_half_widths


@pytest.mark.parametrize("tied", [True, False])
def test_both_solvers_give_the_same_fits_errors_and_endings(tied):
    params = FitParams(tied_widths=tied)
    patches = draw_patches(150, seed=11)
    arrays = (patches.data, photon_weights(patches), *start_parameters(patches, params))
    settings = {"tied": tied, "max_iterations": 300, "tolerance": 1e-11}
    one = solve_batch(*arrays, **settings)
    two = solve_batch_torch(*arrays, **settings, device="cpu", at_once=64)
    same = np.abs(one.chi2 / two.chi2 - 1) < 1e-6
    assert same.mean() > (0.98 if tied else 0.93)
    assert (two.ending == CONVERGED).mean() > 0.95
    if tied:
        np.testing.assert_allclose(one.values[same], two.values[same], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(one.fixed_shape[same], two.fixed_shape[same], rtol=1e-3)
        np.testing.assert_allclose(one.variances[same, 1:3], two.variances[same, 1:3], rtol=1e-2)


@pytest.mark.parametrize("tied", [True, False])
def test_accepted_fits_are_the_same_on_either_path(tied, monkeypatch):
    patches, params = draw_patches(200, seed=12), FitParams(tied_widths=tied)
    one = fit_patches(patches, params)
    monkeypatch.setattr(fit, "_solver", lambda name: partial(solve_batch_torch, device="cpu"))
    two = fit_patches(patches, params)
    assert (one.accepted == two.accepted).mean() >= 0.99
    both = one.accepted & two.accepted
    close = np.abs(one.values - two.values)[both][:, 1:3].max(axis=1) <= 0.01
    close &= (
        np.abs(profile_half_widths(one.values) / profile_half_widths(two.values) - 1)[both].max(axis=1)
        <= 0.01
    )
    close &= np.abs(one.values[both, 0] / two.values[both, 0] - 1) <= 0.01
    close &= np.abs(one.chi2[both] / two.chi2[both] - 1) <= 0.01
    assert close.mean() >= 0.99


def test_no_patches_give_no_solutions():
    empty = np.empty((0, 11))
    solved = solve_batch_torch(
        np.empty((0, 9, 9)),
        np.empty((0, 9, 9)),
        empty,
        empty,
        empty,
        tied=True,
        max_iterations=5,
        tolerance=1e-9,
        device="cpu",
    )
    assert solved.values.shape == (0, 11)
    assert solved.chi2.shape == (0,)
