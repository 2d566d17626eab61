"""Profile fits: known truth, standard errors that mean something, masks, edges, agreement with lmfit."""

import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.bench.fit import draw_patches, run
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.peaks.fit import fit_patches
from peaknet_pipeline.peaks.fit_lmfit import audit_fits
from peaknet_pipeline.peaks.fit_params import FitFlag, FitParams
from peaknet_pipeline.peaks.fit_patches import concatenate_patches, cut_patches
from peaknet_pipeline.peaks.fit_table import fits_table, profile_values
from peaknet_pipeline.profile import AMPLITUDE, HALF_WIDTH_PER_SIGMA, profile_model

TRUE = np.array(
    [
        400.0,
        20.3,
        18.6,
        0.9,
        1.2,
        0.9 * HALF_WIDTH_PER_SIGMA,
        1.2 * HALF_WIDTH_PER_SIGMA,
        0.3,
        0.2,
        -0.1,
        12.0,
    ]
)

ONE_REFLECTION = pd.DataFrame(
    {n: np.zeros(1, int) for n in ("frame", "lattice", "h", "k", "l", "panel")}
    | {"inv_d": [0.25], "intensity": [90.0], "sigma": [6.0]}
)


def make_mean(profile=TRUE, shape=(40, 40)):
    ss, fs = np.indices(shape).astype(float)
    return profile_model(profile, ss, fs, origin=(20.0, 19.0))


def fit_frame(frame, profile=TRUE, *, bad=None, params=None, gain=1.0):
    bad = np.zeros(frame.shape, bool) if bad is None else bad
    patches = cut_patches(
        frame[None], [0], profile[2:3], profile[1:2], bad_pixels=bad[None], adu_per_photon=gain
    )
    return patches, fit_patches(patches, params)


def panel_values(patches, result):
    values = result.values.copy()
    values[:, 1:3] += patches.centre
    return values


@pytest.mark.parametrize("tied", [True, False])
def test_a_noiseless_profile_is_recovered_exactly(tied):
    patches, result = fit_frame(make_mean(), params=FitParams(tied_widths=tied, tolerance=1e-14))
    assert result.accepted.all()
    np.testing.assert_allclose(panel_values(patches, result)[0], TRUE, rtol=2e-4, atol=2e-3)
    assert result.reduced_chi2[0] < 1e-6


def test_free_widths_recover_a_profile_whose_parts_differ():
    profile = TRUE.copy()
    profile[5:7] = 2.5, 0.8
    patches, result = fit_frame(make_mean(profile), params=FitParams(tied_widths=False, tolerance=1e-14))
    np.testing.assert_allclose(panel_values(patches, result)[0], profile, rtol=1e-2, atol=1e-2)


def test_bad_and_nan_pixels_do_not_pull_the_fit():
    frame = make_mean().copy()
    frame[21, 20], frame[18, 17], frame[20, 16] = 1e6, np.nan, -1e5
    bad = np.zeros(frame.shape, bool)
    bad[21, 20] = bad[20, 16] = True
    patches, result = fit_frame(frame, bad=bad)
    np.testing.assert_allclose(panel_values(patches, result)[0, :5], TRUE[:5], rtol=1e-3, atol=2e-3)
    assert result.n_pixels[0] == 78


@pytest.mark.parametrize("corner", [(0.2, 0.4), (39.1, 0.2), (0.0, 38.8), (38.9, 39.2), (20.0, 0.3)])
def test_patches_at_panel_edges_are_cut_and_still_fitted(corner):
    profile = TRUE.copy()
    profile[1:3] = corner
    patches, result = fit_frame(make_mean(profile), profile, params=FitParams(min_pixels=20))
    assert result.n_pixels[0] < 81
    np.testing.assert_allclose(panel_values(patches, result)[0, 1:3], corner, atol=5e-3)


def test_the_gain_scales_amplitude_and_plane_but_not_chi2():
    frame = np.random.default_rng(0).poisson(make_mean()).astype(float)
    one, many = (fits_table(ONE_REFLECTION, *fit_frame(frame * gain, gain=gain)) for gain in (1.0, 35.0))
    assert many["amplitude"][0] == pytest.approx(35 * one["amplitude"][0], rel=1e-5)
    assert many["plane_c_error"][0] == pytest.approx(35 * one["plane_c_error"][0], rel=1e-4)
    assert many["reduced_chi2"][0] == pytest.approx(one["reduced_chi2"][0], rel=1e-5)
    assert many["sigma_ss"][0] == pytest.approx(one["sigma_ss"][0], rel=1e-5)


def test_standard_errors_tell_the_scatter_of_repeated_fits():
    rng = np.random.default_rng(3)
    mean = make_mean()
    parts = [fit_frame(rng.poisson(mean).astype(float))[0] for _ in range(400)]
    result = fit_patches(concatenate_patches(parts))
    inner = np.isfinite(result.errors).all(axis=1)
    for column in (0, 1, 2, 8, 9, 10):
        scatter = result.values[inner, column].std()
        assert np.median(result.errors[inner, column]) == pytest.approx(scatter, rel=0.2)
    assert np.median(result.reduced_chi2) == pytest.approx(0.93, abs=0.08)


def test_pure_background_is_not_accepted_as_a_spot():
    rng = np.random.default_rng(5)
    frames = rng.poisson(20.0, (300, 40, 40)).astype(float)
    result = fit_patches(concatenate_patches([fit_frame(frame)[0] for frame in frames]))
    assert result.accepted.mean() <= 0.03


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        (lambda f, b: b.__setitem__(np.s_[18:22, 17:21], True), FitFlag.MASKED_CENTRE),
        (lambda f, b: b.__setitem__(np.s_[15:21, :], True), FitFlag.TOO_FEW_PIXELS),
        (lambda f, b: f.__setitem__(np.s_[17:23:2, 15:22:2], 300.0), FitFlag.CHI2),
    ],
)
def test_what_goes_wrong_is_flagged(change, flag):
    frame, bad = make_mean().copy(), np.zeros((40, 40), bool)
    change(frame, bad)
    _, result = fit_frame(frame, bad=bad, params=FitParams(min_pixels=40))
    assert result.flags[0] & flag
    assert not result.accepted[0]


@pytest.mark.parametrize("depth", [0.02, 0.1, 1.0])
def test_a_hole_is_never_accepted_as_a_spot(depth):
    _, result = fit_frame(500.0 - depth * make_mean())
    assert result.flags[0] & (FitFlag.NEGATIVE | FitFlag.INSIGNIFICANT | FitFlag.WIDTH_AT_BOUND)


def test_a_spot_beyond_reach_of_its_expected_position_is_flagged():
    profile = TRUE.copy()
    profile[1:3] += 3.4, -2.0
    _, result = fit_frame(make_mean(profile), TRUE)
    assert result.flags[0] & FitFlag.CENTRE_FAR


def test_no_patches_give_an_empty_result():
    patches = cut_patches(np.zeros((1, 40, 40)), [], [], [], bad_pixels=np.zeros((1, 40, 40), bool))
    assert len(fit_patches(patches).flags) == 0


@pytest.mark.parametrize(
    ("panel", "fs", "gain", "message"),
    [
        (0, 55.0, 1.0, "on no panel"),
        (3, 5.0, 1.0, "on no panel"),
        (0, np.nan, 1.0, "on no panel"),
        (0, 5.0, 0.0, "not positive"),
    ],
)
def test_positions_off_the_detector_and_impossible_gains_are_refused(panel, fs, gain, message):
    with pytest.raises(ParameterError, match=message):
        cut_patches(
            np.zeros((1, 40, 40)),
            [panel],
            [fs],
            [5.0],
            bad_pixels=np.zeros((1, 40, 40), bool),
            adu_per_photon=gain,
        )


def test_the_batched_fit_agrees_with_lmfit():
    audit = audit_fits(draw_patches(120, seed=7), n_sample=120)
    assert audit.n_accepted >= 60
    assert audit.agreement >= 0.99


def test_eleven_free_parameters_agree_with_lmfit_where_the_data_want_them():
    params = FitParams(tied_widths=False)
    sample = draw_patches(300, seed=2)
    ratio = fit_patches(sample, params).values[:, 5:7] / fit_patches(sample, params).values[:, 3:5]
    freed = np.flatnonzero((np.abs(ratio / HALF_WIDTH_PER_SIGMA - 1) > 1e-6).any(axis=1))
    assert 0.02 < len(freed) / len(sample) < 0.3
    audit = audit_fits(sample.take(freed[:20]), params, n_sample=20)
    assert audit.n_accepted >= 10
    assert audit.agreement >= 0.9


def test_spots_whose_parts_differ_are_fitted_with_free_widths_and_others_are_not():
    rng = np.random.default_rng(4)
    differing = TRUE.copy()
    differing[[0, 5, 6, 7]] = 4000.0, 3.0, 0.7, 0.6
    for profile, expected in ((TRUE, 0.05), (differing, 1.0)):
        frames = rng.poisson(make_mean(profile), (60, 40, 40)).astype(float)
        patches = concatenate_patches([fit_frame(frame, profile)[0] for frame in frames])
        values = fit_patches(patches, FitParams(tied_widths=False)).values
        free = ~np.isclose(values[:, 5:7], HALF_WIDTH_PER_SIGMA * values[:, 3:5], rtol=1e-9).all(axis=1)
        assert free.mean() == pytest.approx(expected, abs=0.12)


def test_the_benchmark_is_far_ahead_of_lmfit_even_when_small():
    record = run(n_patches=2000, n_lmfit=24, repeats=3)
    assert record["ratio"] > 50
    assert record["agreement"]["n_patches"] == 24


def test_a_fits_table_gives_back_the_profiles_in_panel_pixels():
    patches, result = fit_frame(make_mean())
    table = fits_table(ONE_REFLECTION, patches, result)
    np.testing.assert_allclose(profile_values(table)[0, 1:3], TRUE[1:3], atol=2e-3)
    assert profile_values(table)[0, AMPLITUDE] == pytest.approx(400, rel=1e-3)
    assert (table["inv_d"][0], table["snr"][0]) == (0.25, 15.0)
